"""A worker is a copy where that is safe; it holds nothing of what was open."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labelwise.runtime.engines import process_start
from labelwise.runtime.engines.process_engine import ProcessEngine


def wait(pid: int, _: int) -> int:
    time.sleep(0.1)
    return pid


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_a_copy_keeps_no_lock(tmp_path: Path) -> None:
    """Another process may take a lock as soon as this one has let go, whatever workers do."""
    lock = (tmp_path / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with ProcessEngine(2) as engine:
        assert len(set(engine.map(os.getpid, wait, range(20)))) == 2
        lock.close()
        with (tmp_path / "lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_program_of_its_own_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_start, "_can_fork", lambda: False)
    with ProcessEngine(2) as engine:
        assert len(set(engine.map(os.getpid, wait, range(200)))) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_a_copy_prints_nothing_twice() -> None:
    """What waits to be printed is printed once, by the process that wrote it."""
    program = (
        "import time\n"
        "from labelwise.runtime.engines.process_engine import ProcessEngine\n"
        "print('before', end=' ')\n"
        "with ProcessEngine(2) as engine:\n"
        "    print(sum(engine.map(int, lambda _, item: time.sleep(0.1) or item, range(8))))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "before 28\n"


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_where_no_copy_can_be_made_a_program_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise OSError("no memory")

    open_before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", fail)
        with ProcessEngine(2) as engine:
            assert len(set(engine.map(os.getpid, wait, range(200)))) == 2
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_ctrl_c_while_a_copy_is_made_is_the_callers_alone() -> None:
    """A terminal sends it to all processes: a copy must not run what its caller has in store."""
    program = """
import os, signal, time
from labelwise.runtime.engines.process_engine import ProcessEngine

fork, here = os.fork, os.getpid()

def interrupted():
    pid = fork()
    if os.getpid() != here:
        os.kill(os.getpid(), signal.SIGINT)
    return pid

os.fork = interrupted
try:
    with ProcessEngine(2) as engine:
        pids = set(engine.map(os.getpid, lambda pid, _: time.sleep(0.1) or pid, range(20)))
    print(len(pids), "processes")
except BaseException as error:
    print("caught", type(error), os.getpid() == here)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "2 processes\n", run.stderr
