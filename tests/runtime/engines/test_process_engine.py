"""When further processes are started, what reaches them, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from labelwise.errors import ArgumentError, LabelError, LabelwiseWarning
from labelwise.runtime.engines import ClusterError, ProcessEngine, process_crew, process_engine
from tests.runtime.engines import jobs

GUARDLESS = """
import os, sys, time
from pathlib import Path
from labelwise.runtime.engines import ProcessEngine

class Item:
    def __init__(self, number):
        self.number = number

def work(state, item):
    time.sleep(0.02)
    return state * item.number, os.getpid()

open("ran", "a").write("x")
engine = ProcessEngine(2)
pids = set()
while len(pids) < 2:
    found = list(engine.map(lambda: 10, work, [Item(i) for i in range(20)], setup_key="ten"))
    assert [value for value, _ in found] == [10 * i for i in range(20)]
    pids |= {pid for _, pid in found}
"""

SLEEPING = """
import signal
import sys
from functools import partial
from pathlib import Path
from labelwise.runtime.engines import ProcessEngine
from tests.runtime.engines import jobs

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
folder = Path(sys.argv[1])
with ProcessEngine(3) as engine:
    list(engine.map(partial(jobs.enter_worker, folder), jobs.sleep_long, range(9)))
"""


def count_here(engine: ProcessEngine, n_items: int) -> int:
    """Run items of 20 ms; return how many ran in this process."""
    found = list(engine.map(jobs.no_state, jobs.get_pid, range(n_items)))
    return sum(pid == os.getpid() for _, pid in found)


def test_all_workers_and_this_process_share_the_items(full_processes: ProcessEngine) -> None:
    found = list(full_processes.map(jobs.no_state, jobs.get_pid, range(60)))
    pids = {pid for _, pid in found}
    assert len(pids) == full_processes.n_workers
    assert os.getpid() in pids


def test_by_default_there_is_a_worker_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_engine, "usable_cores", lambda: 6)
    assert ProcessEngine().n_workers == 6
    assert ProcessEngine(n_threads=4).n_workers == 1


def test_little_work_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_engine, "usable_cores", lambda: 2)
    monkeypatch.setattr(process_crew, "start_process", lambda _: pytest.fail("started one"))
    with ProcessEngine() as engine:
        assert count_here(engine, 20) == 20
        stream = (item for item in range(20))
        assert list(engine.map(jobs.no_state, jobs.square, stream)) == [i**2 for i in range(20)]


@pytest.mark.parametrize("tells_length", [True, False])
def test_work_that_pays_starts_them(monkeypatch: pytest.MonkeyPatch, tells_length: bool) -> None:
    monkeypatch.setattr(process_engine, "usable_cores", lambda: 2)
    monkeypatch.setattr(process_engine, "expected_start_s", lambda _: 0.1)
    monkeypatch.setattr(process_engine, "_LEAST_SHARE", -1.0)  # whatever else the machine does
    pids: set[int] = set()
    with ProcessEngine() as engine:

        def read() -> Iterator[int]:
            deadline = time.monotonic() + 60
            while len(pids) < 2 and time.monotonic() < deadline:
                yield 0

        items = range(500) if tells_length else read()
        for _, pid in engine.map(jobs.no_state, jobs.get_pid, items):
            pids.add(pid)
    assert len(pids) == 2


def test_no_process_is_started_on_a_machine_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_engine, "usable_cores", lambda: 2)
    monkeypatch.setattr(process_engine, "expected_start_s", lambda _: 0.001)
    monkeypatch.setattr(process_crew, "start_process", lambda _: pytest.fail("started one"))
    with ProcessEngine() as engine:
        assert count_here(engine, 20) == 20, "asleep, this process has less than a core"


def test_no_process_is_started_beyond_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_crew, "start_process", lambda _: pytest.fail("started one"))
    with ProcessEngine(3, memory_bytes=10**6) as engine:
        assert count_here(engine, 10) == 10


def test_warnings_of_workers_are_given_here_each_once(full_processes: ProcessEngine) -> None:
    with pytest.warns(LabelwiseWarning) as caught:
        pids = set(full_processes.map(jobs.no_state, jobs.warn_and_print, range(60)))
    assert len(pids) == full_processes.n_workers
    texts = [str(warning.message) for warning in caught]
    assert set(texts) == {"item 0 is odd", "item 1 is odd"}
    n_here = len(range(60)) // 2
    assert len(texts) < n_here, "those of other processes once"


def test_an_error_of_a_worker_tells_where_it_was_raised(full_processes: ProcessEngine) -> None:
    with pytest.raises(LabelError, match="no label there") as caught:
        list(full_processes.map(partial(int, os.getpid()), jobs.fail_elsewhere, range(60)))
    (note,) = caught.value.__notes__
    assert note.startswith("In a worker process:")
    assert "jobs.py" in note


def test_work_that_cannot_be_sent_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    with ProcessEngine(3) as engine:
        with pytest.warns(LabelwiseWarning, match="one core is used, since the work cannot be"):
            found = list(engine.map(lambda: lock, jobs.get_pid, range(9)))
        assert {pid for _, pid in found} == {os.getpid()}


def test_workers_that_cannot_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "raise SystemExit(3)"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(process_crew, "start_process", start)
    with ProcessEngine(2) as engine, pytest.raises(ClusterError, match=r"died as they .*code 3"):
        list(engine.map(jobs.no_state, jobs.get_pid, range(10_000)))


def test_a_script_without_a_guard_runs_once_and_sends_its_own_functions(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(GUARDLESS)
    subprocess.run([sys.executable, script], check=True, timeout=120, cwd=tmp_path)
    assert (tmp_path / "ran").read_text() == "x"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_ends_busy_workers_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPING, tmp_path], stderr=subprocess.PIPE, start_new_session=True
    )
    begun = tmp_path / "begun"
    deadline = time.monotonic() + 60
    while not begun.exists() or len(begun.read_text().split()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = {int(pid) for pid in begun.read_text().split()} - {process.pid}
    sent = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=10)
    assert b"KeyboardInterrupt" in said
    assert b"process_worker" not in said, "workers end without a word"
    assert not any(psutil.pid_exists(pid) for pid in workers)
    assert time.monotonic() - sent < 5


def test_idle_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = SLEEPING.replace("jobs.sleep_long", "jobs.write_ledger").replace(
        "range(9)))", "range(200)))\n    print('done', flush=True)\n    sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"done\n"
    workers = {int(pid) for pid in (tmp_path / "setups").read_text().split()} - {process.pid}
    assert workers
    process.kill()
    process.communicate()
    for pid in workers:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(timeout=5)


def test_a_closed_engine_says_so() -> None:
    engine = ProcessEngine(1)
    engine.close()
    engine.close()
    with pytest.raises(ClusterError, match="was closed"):
        next(engine.map(jobs.no_state, jobs.square, range(3)))


@pytest.mark.parametrize("arguments", [{"n_workers": 0}, {"n_threads": 0}])
def test_wrong_arguments(arguments: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match="allowed are numbers from 1"):
        ProcessEngine(**arguments)  # type: ignore[arg-type]


def test_setup_is_called_once_here_for_equal_keys(tmp_path: Path) -> None:
    setup = partial(jobs.enter_worker, tmp_path)
    with ProcessEngine(1) as engine:
        for _ in range(2):
            list(engine.map(setup, jobs.write_ledger, range(2), setup_key="one"))
    assert (tmp_path / "setups").read_text().split() == [str(os.getpid())]
