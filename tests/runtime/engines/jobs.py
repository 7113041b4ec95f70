"""Functions that worker processes run; they import this module by name."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from labelwise.errors import LabelError, LabelwiseWarning, MissingDependencyError, ReadError


def no_state() -> None:
    return None


def append_line(path: Path, text: str) -> None:
    with path.open("a") as file:  # O_APPEND: lines of several processes do not mix
        file.write(text + "\n")


def enter_worker(folder: Path) -> Path:
    """A setup that says in which process it ran."""
    append_line(folder / "setups", str(os.getpid()))
    return folder


def square(_: None, item: int) -> int:
    return item * item


def make_row(_: object, item: int) -> np.ndarray:
    return np.random.default_rng(item).normal(size=1000)


def write_ledger(folder: Path, item: int) -> int:
    """An item of 50 ms that says when it starts and when it has finished."""
    append_line(folder / "ledger", f"start {item} {os.getpid()}")
    time.sleep(0.05)
    append_line(folder / "ledger", f"end {item} {os.getpid()}")
    return item * item


def square_in_time(item_seconds: float, item: int) -> int:
    time.sleep(item_seconds if item else 1.5)
    return item * item


def die_at_seven(parent: int, item: int) -> int:
    """End the worker; the process that asks is slow and so comes late for item 7."""
    if os.getpid() == parent:
        time.sleep(0.3)
    elif item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def get_pid(state: Any, item: int) -> tuple[Any, int]:
    time.sleep(0.02)
    return state, os.getpid()


def get_threads(_: None, item: int) -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def fail_at_five(kind: str, item: int) -> int:
    if item == 5:
        if kind == "read":
            raise ReadError("chunk 5 is damaged")
        if kind == "label":
            raise LabelError("chunk 5 has no label 'REF_energy'")
        if kind == "dependency":
            raise MissingDependencyError("mace-torch", "mace", "chunk 5")
        if kind == "file":
            raise FileNotFoundError(2, "No such file", "chunk5")
        raise ZeroDivisionError("chunk 5")
    return item


def fail_elsewhere(parent: int, item: int) -> int:
    time.sleep(0.02)
    if os.getpid() != parent:
        raise LabelError("no label there")
    return item


def warn_and_print(_: None, item: int) -> int:
    os.write(1, b"a line on standard output\n")
    warnings.warn(f"item {item % 2} is odd", LabelwiseWarning, stacklevel=1)
    time.sleep(0.02)
    return os.getpid()


def sleep_long(folder: Path, item: int) -> int:
    append_line(folder / "begun", str(os.getpid()))
    time.sleep(60.0)
    return item


def fail_to_set_up() -> None:
    raise MissingDependencyError("mace-torch", "mace", "loading a MACE model")
