"""What a Ray started here leaves behind, whichever way its process ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

DRIVER = """
import os
import sys
import time
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
import ray  # as a user's script may have done before
from labelwise.runtime.engines import RayEngine

def work(_, item):
    time.sleep(0.05)
    return os.getpid()

before = dict(os.environ)
engine = RayEngine(n_workers=2, object_store_bytes=80_000_000)
assert dict(os.environ) == before
ends = sys.argv[1]
with engine:
    for i, pid in enumerate(engine.map(lambda: None, work, range(100_000))):
        if i == 10:
            print("running", flush=True)
            if ends != "never":
                sys.stdin.readline()
            if ends == "error":
                raise ZeroDivisionError("from the consumer")
            if ends == "done":
                break
print("closed", ray.is_initialized(), flush=True)
"""


def start_driver(ends: str, folder: Path) -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("RAY_")
    } | {"HOME": str(folder), "TMPDIR": ""}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, ends],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def find_temp(processes: list[psutil.Process]) -> Path:
    """Return the folder of a Ray's files, as its daemons' command lines give it."""
    for process in processes:
        for argument in process.cmdline():
            _, found, rest = argument.partition("--raylet_socket_name=")
            if found:
                return Path(rest).parents[2]
    raise AssertionError("no raylet runs")


@pytest.mark.parametrize(
    ("ends", "sent"),
    [
        ("never", signal.SIGINT),
        pytest.param("never", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("never", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("error", None, marks=pytest.mark.slow),
        pytest.param("done", None, marks=pytest.mark.slow),
    ],
)
def test_nothing_runs_on_after_the_driver(
    tmp_path: Path, ends: str, sent: signal.Signals | None
) -> None:
    with start_driver(ends, tmp_path) as driver:
        try:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "running\n"
            daemons = psutil.Process(driver.pid).children(recursive=True)
            temp = find_temp(daemons)
            if sent == signal.SIGINT:
                os.killpg(driver.pid, sent)  # a terminal sends it to the whole group
            elif sent is not None:
                driver.send_signal(sent)
            out, err = driver.communicate("go on\n" if sent is None else None, timeout=180)
        finally:
            driver.kill()
    # Two of Ray's agents look for a minute for the server that was killed with them.
    assert not psutil.wait_procs(daemons, timeout=150 if sent == signal.SIGKILL else 15)[1]
    assert not (tmp_path / ".ray").exists(), "nothing is written into the home folder"
    if sent == signal.SIGKILL:
        shutil.rmtree(temp)  # nobody was left to do it
    assert not temp.exists()
    if sent == signal.SIGINT:
        assert "KeyboardInterrupt" in err
    if ends == "done":
        assert (out, err) == ("closed False\n", "")
    if ends == "error":
        assert "ZeroDivisionError: from the consumer" in err


def test_a_missing_ray_is_named() -> None:
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "from labelwise.runtime.engines import *\nRayEngine()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "MissingDependencyError: running on Ray needs the package 'ray'" in done.stderr
    assert "pip install 'labelwise[ray]'" in done.stderr


BROKEN = """
import os, sys
from labelwise.runtime.engines import ClusterError, RayEngine

os.environ["PYTHONPATH"] = sys.argv[1]  # read by the workers, which find no whole package there
with RayEngine(n_workers=1, object_store_bytes=80_000_000) as engine:
    try:
        list(engine.map(lambda: None, lambda _, item: item, range(3)))
    except ClusterError as error:
        print(error)
"""


@pytest.mark.slow
def test_workers_that_cannot_start_are_not_started_for_ever(tmp_path: Path) -> None:
    (tmp_path / "labelwise").mkdir()
    (tmp_path / "labelwise" / "__init__.py").write_text("raise ImportError('half installed')\n")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert "3 workers in a row died as they started" in done.stdout, done.stderr
    assert "labelwise is installed on every node" in done.stdout
    assert time.monotonic() - began < 90


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_an_address_where_nothing_answers_is_an_error(address: str) -> None:
    script = f"from labelwise.runtime.engines import RayEngine\nRayEngine({address!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"ClusterError: no Ray can be joined at {address!r}" in done.stderr
    assert "ray start --head" in done.stderr
