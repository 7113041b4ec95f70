"""Labels from any ASE calculator, several processes at once."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from labelwise.campaign.labelling.base import Failure, Label, LabellingError, Outcome, Task
from labelwise.campaign.labelling.encoding import encode_structure
from labelwise.campaign.labelling.registry import (
    LabellerSettings,
    LabellingRound,
    register_labeller,
)
from labelwise.errors import ArgumentError, WriteError

_START_LIMIT_S = 300.0
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@dataclass(frozen=True)
class CalculatorSpec:
    """How a calculator is made, in words that go into a configuration file.

    Attributes:
        calculator: ``package.module.Class`` (``tblite.ase.TBLite``), the same of a function
            that returns a calculator, or a name that ASE knows (``orca``).
        arguments: Its keyword arguments.
        info_arguments: Keyword arguments that come from the structure: argument to info
            key, for instance ``charge: total_charge``.
        import_from: A folder that is searched for modules first.
    """

    calculator: str
    arguments: dict[str, Any] = field(default_factory=dict)
    info_arguments: dict[str, str] = field(default_factory=dict)
    import_from: str = "."


class CalculatorLabeller:
    """Runs an ASE calculator in worker processes.

    A worker that takes too long for a structure is killed with every program that it
    started, and a new one takes its place. Calculations that fail are tried again.
    """

    name = "calculator"

    def __init__(
        self,
        spec: CalculatorSpec,
        *,
        scratch: Path,
        n_workers: int = 1,
        n_threads: int = 1,
        time_limit_s: float | None = None,
        n_retries: int = 1,
    ) -> None:
        """Set the machine's side of it.

        Args:
            spec: The calculator.
            scratch: Folder for the files of the calculations, which run in a folder of
                their own each; those of failed calculations are kept.
            n_workers: Processes at once.
            n_threads: Threads of each (``OMP_NUM_THREADS`` and the like).
            time_limit_s: Limit for one calculation, seconds; None for no limit.
            n_retries: Further tries for a calculation that failed.

        Raises:
            ArgumentError: A number is out of range.
        """
        if n_workers < 1 or n_threads < 1 or n_retries < 0:
            raise ArgumentError(
                f"n_workers={n_workers}, n_threads={n_threads}, n_retries={n_retries}: "
                "allowed are numbers from 1, 1 and 0"
            )
        if time_limit_s is not None and time_limit_s <= 0:
            raise ArgumentError(f"time_limit_s is {time_limit_s}; it must be above 0")
        self._spec = spec
        self._scratch = scratch.absolute()
        self._n_workers = n_workers
        self._n_threads = n_threads
        self._time_limit_s = time_limit_s
        self._n_retries = n_retries

    def check(self) -> None:
        """See that the calculator can be imported and made; nothing is calculated.

        Raises:
            LabellingError: It cannot be imported or made.
            WriteError: The scratch folder cannot be written to.
        """
        _Worker(self._spec, self._scratch / "worker_000.log", self._n_threads).kill()

    def label(self, queue: deque[Task]) -> Iterator[Outcome]:
        """Yield outcomes as they come; see ``Labeller``.

        Raises:
            LabellingError: The calculator cannot be imported or made.
            WriteError: The scratch folder cannot be written to.
        """
        if not queue:
            return
        crew = _Crew(self._spec, self._scratch, self._n_threads, self._time_limit_s)
        try:
            while queue or crew.n_busy:
                while queue and crew.n_busy < self._n_workers:
                    crew.start(_Job(queue.popleft()))
                for job, answer in crew.wait():
                    job = job.after(answer)
                    if "energy" not in answer and job.n_tries <= self._n_retries:
                        crew.start(job)
                    else:
                        yield job.outcome(answer)
        finally:
            crew.kill()


@dataclass(frozen=True)
class _Job:
    """A task and what it has cost so far."""

    task: Task
    n_tries: int = 0
    seconds: float = 0.0

    def after(self, answer: dict[str, Any]) -> _Job:
        return replace(self, n_tries=self.n_tries + 1, seconds=self.seconds + answer["seconds"])

    def outcome(self, answer: dict[str, Any]) -> Outcome:
        key, n_tries, seconds = self.task.key, self.n_tries, self.seconds
        if "energy" in answer:
            forces = np.array(answer["forces"], dtype=np.float64).reshape(-1, 3)
            return Label(key, answer["energy"], forces, n_tries, seconds)
        return Failure(key, answer["reason"], answer["detail"], n_tries, seconds)


class _Crew:
    """Worker processes: those that wait and those that calculate."""

    def __init__(
        self, spec: CalculatorSpec, scratch: Path, n_threads: int, time_limit_s: float | None
    ) -> None:
        self._spec = spec
        self._scratch = scratch
        self._n_threads = n_threads
        self._time_limit_s = time_limit_s
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._n_started = 0

    @property
    def n_busy(self) -> int:
        return len(self._busy)

    def start(self, job: _Job) -> None:
        """Give a job to a worker that waits, or to a new one."""
        worker = self._idle.pop() if self._idle else self._hire()
        self._busy.append(worker)
        worker.give(job, self._scratch / job.task.key)

    def wait(self) -> list[tuple[_Job, dict[str, Any]]]:
        """Wait until a worker has answered, died or overrun its limit.

        Returns:
            Those jobs, each with energy and forces, or a reason; and with seconds.
        """
        ready = self._wait_for_any()
        finished = []
        for worker in list(self._busy):
            answer = worker.read() if worker in ready else None
            if answer is None and self._is_late(worker):
                answer = {
                    "reason": "time-out",
                    "detail": f"longer than {self._time_limit_s:g} s",
                    "seconds": worker.elapsed(),
                    "gone": True,
                }
            if answer is None:
                continue
            self._busy.remove(worker)
            finished.append((worker.job, answer))
            if answer.get("gone"):
                worker.kill()
            else:
                self._idle.append(worker)
        return finished

    def kill(self) -> None:
        """End every worker and what it has started."""
        for worker in (*self._idle, *self._busy):
            worker.kill()
        self._idle, self._busy = [], []

    def _hire(self) -> _Worker:
        self._n_started += 1
        log = self._scratch / f"worker_{self._n_started:03d}.log"
        return _Worker(self._spec, log, self._n_threads)

    def _is_late(self, worker: _Worker) -> bool:
        return self._time_limit_s is not None and worker.elapsed() >= self._time_limit_s

    def _wait_for_any(self) -> list[_Worker]:
        timeout = None
        if self._time_limit_s is not None:
            timeout = max(0.0, self._time_limit_s - max(w.elapsed() for w in self._busy))
        with selectors.DefaultSelector() as selector:
            for worker in self._busy:
                selector.register(worker.stdout, selectors.EVENT_READ, worker)
            return [key.data for key, _ in selector.select(timeout)]


class _Worker:
    """One worker process and the job that it is at."""

    def __init__(self, spec: CalculatorSpec, log: Path, n_threads: int) -> None:
        self._log = log
        self.job: _Job
        self._began = time.perf_counter()
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(n_threads))}
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as stream:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "labelwise.campaign.labelling.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise WriteError(
                f"cannot start a calculation in {log.parent}: {error.strerror or error}"
            ) from error
        words = {
            "calculator": spec.calculator,
            "arguments": spec.arguments,
            "info_arguments": spec.info_arguments,
            "import_from": str(Path(spec.import_from).absolute()),
        }
        self._send(words)
        self._await_ready(spec)

    @property
    def stdout(self) -> Any:
        return self._process.stdout

    def give(self, job: _Job, folder: Path) -> None:
        self.job = job
        self._began = time.perf_counter()
        structure = encode_structure(job.task.atoms)
        self._send({"structure": structure, "folder": str(folder)})

    def elapsed(self) -> float:
        """Return the seconds since the job was given."""
        return time.perf_counter() - self._began

    def read(self) -> dict[str, Any]:
        """Return the answer; a worker that died answers with a reason."""
        line = self.stdout.readline()
        if line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        detail = f"the process ended ({how}); it said last: {self._last_words()}"
        return {"reason": "crashed", "detail": detail, "seconds": self.elapsed(), "gone": True}

    def kill(self) -> None:
        """End the process and all that it started."""
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        with suppress(OSError):
            if self._log.stat().st_size == 0:
                self._log.unlink()

    def _send(self, message: dict[str, Any]) -> None:
        stdin = self._process.stdin
        # A worker that died is found when its answer is read.
        with suppress(BrokenPipeError):
            if stdin is not None:
                stdin.write(json.dumps(message).encode() + b"\n")
                stdin.flush()

    def _await_ready(self, spec: CalculatorSpec) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            answered = bool(selector.select(_START_LIMIT_S))
        answer = self.read() if answered else {"error": f"no answer in {_START_LIMIT_S:g} s"}
        if "ready" in answer:
            return
        self.kill()
        reason = answer.get("error", answer.get("detail"))
        raise LabellingError(
            f"the calculator {spec.calculator!r} with arguments {spec.arguments} cannot be "
            f"made: {reason}"
        )

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1][:200]
        return "nothing"


class CalculatorSettings(LabellerSettings):
    """Any ASE calculator; see ``CalculatorSpec`` and ``CalculatorLabeller``."""

    calculator: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    info_arguments: dict[str, str] = Field(default_factory=dict)
    n_workers: int = Field(default=1, ge=1)
    n_threads: int = Field(default=1, ge=1)
    time_limit_s: float | None = Field(default=None, gt=0.0)
    n_retries: int = Field(default=1, ge=0)


def _make(settings: CalculatorSettings, where: LabellingRound) -> CalculatorLabeller:
    return CalculatorLabeller(
        CalculatorSpec(
            settings.calculator,
            settings.arguments,
            settings.info_arguments,
            str(where.directory),
        ),
        scratch=where.directory / "calculations",
        n_workers=settings.n_workers,
        n_threads=settings.n_threads,
        time_limit_s=settings.time_limit_s,
        n_retries=settings.n_retries,
    )


register_labeller("calculator", _make, CalculatorSettings)
