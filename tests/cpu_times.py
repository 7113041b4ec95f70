"""CPU seconds of each test, of its process and all below it: ``pytest -p tests.cpu_times``.

Wall time says little where several processes share two cores. A line of JSON for each test, the
name and its seconds, is added to the file that CPU_TIMES names (default ``cpu_times.jsonl``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest


def cpu_seconds() -> float:
    """Return what this process, those that it waited for and those that live below it took."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    before = cpu_seconds()
    result = yield
    line = json.dumps([item.nodeid, round(cpu_seconds() - before, 2)])
    with Path(os.environ.get("CPU_TIMES", "cpu_times.jsonl")).open("a") as stream:
        stream.write(f"{line}\n")
    return result
