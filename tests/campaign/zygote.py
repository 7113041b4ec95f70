"""A process that has everything imported and forks a child for each run.

Importing torch and mace-torch takes seconds; a kill test of fifty runs would be minutes of
imports. The parent never computes, so that a fork of it is a fresh process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any


class Zygote:
    """The test's side."""

    def __enter__(self) -> Zygote:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def run(
        self,
        directory: Path,
        *,
        kill_at: int | None = None,
        torn: bool = False,
        kill_after_s: float | None = None,
    ) -> dict[str, Any]:
        """Run a campaign in a child; return ``killed``, ``code``, ``seconds``, ``n_boundaries``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = {
            "directory": str(directory),
            "kill_at": kill_at,
            "torn": torn,
            "after": kill_after_s,
        }
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def _child(words: dict[str, Any], count_file: str) -> None:
    from tests.campaign.faults import run_and_count

    code = 1
    try:
        run_and_count(words["directory"], words["kill_at"], words["torn"], count_file)
        code = 0
    finally:
        os._exit(code)


def _wait(pid: int, limit_s: float | None) -> int:
    """Wait for the child; kill it when its time is over. It is ours until it was waited for."""
    began = time.perf_counter()
    while limit_s is not None and time.perf_counter() - began < limit_s:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    if limit_s is not None:
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    import labelwise.campaign
    import labelwise.potentials.mace.potential  # noqa: F401
    from labelwise.potentials.mace.checkpoint import import_mace_modules

    import_mace_modules()
    for line in sys.stdin:
        words = json.loads(line)
        with tempfile.NamedTemporaryFile() as count:
            began = time.perf_counter()
            pid = os.fork()
            if pid == 0:
                _child(words, count.name)
            status = _wait(pid, words["after"])
            text = Path(count.name).read_text()
        answer = {
            "killed": os.WIFSIGNALED(status),
            "code": None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status),
            "seconds": time.perf_counter() - began,
            "n_boundaries": int(text) if text else None,
        }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
