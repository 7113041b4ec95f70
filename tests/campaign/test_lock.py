from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from labelwise.campaign import lock
from labelwise.campaign.errors import LockedError
from labelwise.campaign.lock import LOCK_FILE, Holder, campaign_lock, is_stale, read_holder


@pytest.fixture
def ours(tmp_path: Path) -> Holder:
    with campaign_lock(tmp_path) as holder:
        return holder


def put(directory: Path, holder: Holder) -> None:
    (directory / LOCK_FILE).write_text(json.dumps(asdict(holder)))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_second_is_told_who_has_it(tmp_path: Path) -> None:
    with (
        campaign_lock(tmp_path) as holder,
        pytest.raises(LockedError, match=rf"process {os.getpid()} on {holder.host}, since"),
        campaign_lock(tmp_path),
    ):
        pass
    assert read_holder(tmp_path) is None


def test_it_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), campaign_lock(tmp_path):
        raise KeyboardInterrupt
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_dead_holder_is_recognised(tmp_path: Path, ours: Holder) -> None:
    put(tmp_path, replace(ours, pid=dead_pid()))
    with campaign_lock(tmp_path) as holder:
        assert holder.pid == os.getpid()


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({}, False),
        ({"boot": "another-boot"}, True),
        ({"born": 1}, True),  # the number was given to another process since
        ({"born": 0, "boot": ""}, False),
        ({"host": "node17", "pid": 1 << 30}, False),  # nothing is known of other machines
    ],
)
def test_what_counts_as_stale(ours: Holder, change: dict[str, object], stale: bool) -> None:
    assert is_stale(replace(ours, **change)) is stale


def test_a_zombie_is_dead(ours: Holder) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # it has ended, and nobody has waited for it
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_stale(replace(ours, pid=process.pid, born=0))
    process.wait()
    process.stdout.close()


def test_break_lock(tmp_path: Path, ours: Holder) -> None:
    put(tmp_path, replace(ours, host="node17"))
    with pytest.raises(LockedError, match=r"on node17.*--break-lock"), campaign_lock(tmp_path):
        pass
    with campaign_lock(tmp_path, break_lock=True):
        pass


def test_a_lock_that_was_taken_over_is_not_removed(tmp_path: Path) -> None:
    with campaign_lock(tmp_path):
        with campaign_lock(tmp_path, break_lock=True) as second:
            put(tmp_path, second)
        assert read_holder(tmp_path) is None
    with campaign_lock(tmp_path) as first:
        put(tmp_path, replace(first, token="another"))
    assert (tmp_path / LOCK_FILE).exists()


def test_a_lock_file_of_something_else(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("{}")
    with pytest.raises(LockedError, match="cannot be read"), campaign_lock(tmp_path):
        pass


_CROWD = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from labelwise.campaign.errors import LockedError
from labelwise.campaign.lock import campaign_lock
gate, opened = os.pipe()
answers, told = os.pipe()
pids = []
for _ in range(8):
    pids.append(os.fork())
    if pids[-1] == 0:
        os.close(opened)
        os.read(gate, 1)  # all begin when the gate is closed
        try:
            with campaign_lock(Path(sys.argv[1])):
                os.write(told, b"Y")
                time.sleep(1.5)
        except LockedError:
            os.write(told, b"n")
        os._exit(0)
os.close(opened)
for pid in pids:
    os.waitpid(pid, 0)
print(os.read(answers, 8).decode())
"""


def test_one_of_many_gets_it(tmp_path: Path, ours: Holder) -> None:
    """Eight processes find the lock of a dead one at the same time."""
    put(tmp_path, replace(ours, pid=dead_pid()))
    done = subprocess.run(
        [sys.executable, "-c", _CROWD, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.strip()) == ["Y", *["n"] * 7]


def test_a_guard_that_its_holder_removed_guards_nobody(tmp_path: Path) -> None:
    """Whoever waited for it waits for the next one, so that there are never two of them."""
    taken = threading.Event()

    def wait() -> None:
        with lock._guard(tmp_path):
            assert (tmp_path / ".lock.guard").exists()
            taken.set()

    with lock._guard(tmp_path):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        (tmp_path / ".lock.guard").unlink()
        assert not taken.is_set()
    thread.join(10)
    assert taken.is_set()
    assert (tmp_path / ".lock.guard").exists()
