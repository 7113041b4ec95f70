"""How many cores may this process use, and how many threads does it?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labelwise.errors import ArgumentError
from labelwise.runtime.control_groups import iter_limits

#: Time that a group may compute and the period in which it may, microseconds, by version.
_QUOTA_FILES = {"cgroup2": "cpu.max", "cgroup": "cpu.cfs_quota_us"}
_PERIOD_US = 100_000  # of version 1, whose files keep the two apart; hardly ever changed


def usable_cores(proc: Path = Path("/proc/self")) -> int:
    """Return how many cores this process may use, at least 1.

    The least of the cores that the process is bound to (``taskset``, batch systems), the
    quotas of its control groups (containers) and ``SLURM_CPUS_PER_TASK``.

    Args:
        proc: Where the kernel tells of this process.

    Examples:
        >>> usable_cores() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        bound = len(os.sched_getaffinity(0))
    else:  # macOS, Windows
        bound = os.cpu_count() or 1
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    promised = [int(slurm)] if slurm.isascii() and slurm.isdigit() else []
    quotas = [_count(text) for text in iter_limits("cpu", _QUOTA_FILES, proc)]
    return max(1, min([bound, *promised, *(quota for quota in quotas if quota is not None)]))


def resolve_workers(text: str) -> int | None:
    """Return the number that ``--workers`` means; None for ``auto``.

    Raises:
        ArgumentError: It is neither ``auto`` nor a whole number from 1.
    """
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ArgumentError(f"workers is {text!r}; allowed are auto and whole numbers from 1")
    return int(text)


@contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Let PyTorch, if it is loaded, use so many threads in this process for a while."""
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    if torch is None or before == n_threads:
        yield
        return
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _count(quota: str) -> int | None:
    """Return the cores that a quota is worth, rounded up; None where it is unlimited."""
    time_us, _, period_us = quota.partition(" ")
    if not time_us.isdigit():  # "max", or -1
        return None
    return -(-int(time_us) // int(period_us or _PERIOD_US))
