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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from labelwise.campaign.labelling.base import (
    Failure,
    Label,
    LabellingError,
    Outcome,
    Task,
    register_labeller,
)
from labelwise.campaign.labelling.encoding import encode_structure
from labelwise.campaign.labelling.level import CalculationSettings
from labelwise.campaign.labelling.store import LabelStore, LabelWriter
from labelwise.errors import WriteError

#: Folder of the calculations, in the campaign's.
SCRATCH = "calculations"
_START_LIMIT_S = 300.0
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class CalculatorSettings(CalculationSettings):
    """How a calculator is made and run on this machine.

    Attributes:
        n_workers: Processes at once.
    """

    kind: str = "calculator"
    n_workers: int = Field(default=1, ge=1)

    @property
    def n_at_once(self) -> int:
        """Calculations at once."""
        return self.n_workers


class CalculatorLabeller:
    """Runs an ASE calculator in worker processes.

    A worker that takes too long for a structure is killed with every program that it
    started, and a new one takes its place. Calculations that fail are tried again.

    Args:
        settings: The calculator, and the machine's side of it.
        directory: Where modules are searched first. In its folder ``calculations`` each one
            runs in a folder of its own; those of failed calculations are kept.
        writer: Name of the part of the store that is written to, if the settings name a store,
            and of the workers' logs; None for one of this machine and process.
        store: The store that the settings name, if it is read already.
    """

    name = "calculator"

    def __init__(
        self,
        settings: CalculatorSettings,
        directory: Path,
        *,
        writer: str | None = None,
        store: LabelStore | None = None,
    ) -> None:
        self._settings, self._directory = settings, directory.absolute()
        self._writer_name = writer
        self._store = store
        self._writer: LabelWriter | None = None

    def check(self) -> None:
        """See that the calculator can be imported and made; nothing is calculated.

        Raises:
            LabellingError: It cannot be imported or made.
            WriteError: The scratch folder cannot be written to.
        """
        crew = self._gather_crew()
        try:
            crew.make_ready()
        finally:
            crew.kill()

    def label(self, queue: deque[Task]) -> Iterator[Outcome]:
        """Yield outcomes as they come; see ``Labeller``.

        Raises:
            LabellingError: The calculator cannot be imported or made.
            WriteError: The scratch folder or the store cannot be written to.
        """
        if not queue:
            return
        self._open_store()
        crew = self._gather_crew()
        try:
            while queue or crew.busy:
                while queue and len(crew.busy) < self._settings.n_workers:
                    task = queue.popleft()
                    known = self._find(task)
                    if known is None:
                        crew.make_ready()
                        self._prepare_to_keep()
                        crew.start(_Job(task))
                    else:
                        yield known
                for job, answer in crew.wait():
                    job = job.after(answer)
                    if "energy" not in answer and job.n_tries <= self._settings.n_retries:
                        crew.start(job)
                    else:
                        yield self._keep(job.task, job.outcome(answer))
        except WriteError:
            self._keep_rest(crew)
            raise
        finally:
            crew.kill()
            if self._writer is not None:
                self._writer.close()

    def _gather_crew(self) -> _Crew:
        name = "worker" if self._writer_name is None else self._writer_name
        return _Crew(self._settings, self._directory, name)

    def _open_store(self) -> None:
        if self._store is None and self._settings.store is not None:
            self._store = LabelStore(self._directory / self._settings.store, self._settings)
        if self._store is not None:
            self._store.refresh()
            self._writer = LabelWriter(self._store, self._writer_name)

    def _find(self, task: Task) -> Label | None:
        """Return the label of a task that is in the store already."""
        return None if self._store is None else self._store.find_label(task.atoms, task.key)

    def _prepare_to_keep(self) -> None:
        """See that there is room for an outcome before anything is calculated."""
        if self._writer is not None:
            self._writer.prepare()

    def _keep(self, task: Task, outcome: Outcome) -> Outcome:
        return outcome if self._writer is None else self._writer.append(task, outcome)

    def _keep_rest(self, crew: _Crew) -> None:
        """Wait for the calculations under way: the disk may have space for what they give."""
        while self._writer is not None and crew.busy:
            for job, answer in crew.wait():
                with suppress(WriteError):
                    self._keep(job.task, job.after(answer).outcome(answer))


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
            stress = np.array(answer["stress"]) if "stress" in answer else None
            return Label(key, answer["energy"], forces, n_tries, seconds, stress)
        return Failure(key, answer["reason"], answer["detail"], n_tries, seconds)


class _Crew:
    """Worker processes: those that wait and those that calculate."""

    def __init__(self, settings: CalculatorSettings, directory: Path, name: str) -> None:
        self._settings, self._directory, self._name = settings, directory, name
        self._idle: list[_Worker] = []
        self.busy: list[_Worker] = []
        self._n_started = 0

    def make_ready(self) -> None:
        """See that a worker waits, which has made the calculator once."""
        if not self._idle:
            self._n_started += 1
            log = self._directory / SCRATCH / f"{self._name}_{self._n_started:03d}.log"
            self._idle.append(_Worker(self._settings, self._directory, log))

    def start(self, job: _Job) -> None:
        """Give a job to a worker."""
        self.make_ready()
        worker = self._idle.pop()
        self.busy.append(worker)
        worker.give(job, self._directory / SCRATCH / job.task.key)

    def wait(self) -> list[tuple[_Job, dict[str, Any]]]:
        """Wait until a worker has answered, died or overrun its limit.

        Returns:
            Those jobs, each with energy and forces, or a reason; and with seconds.
        """
        ready = self._wait_for_any() if self.busy else []
        finished: list[tuple[_Job, dict[str, Any]]] = []
        for worker in list(self.busy):
            answer = worker.read() if worker in ready else None
            if answer is None and self._is_late(worker):
                answer = {
                    "reason": "time-out",
                    "detail": f"longer than {self._settings.time_limit_s:g} s",
                    "seconds": worker.elapsed(),
                    "gone": True,
                }
            if answer is None:
                continue
            self.busy.remove(worker)
            finished.append((worker.job, answer))
            if answer.get("gone"):
                worker.kill()
            else:
                self._idle.append(worker)
        return finished

    def kill(self) -> None:
        """End every worker and what it has started."""
        for worker in (*self._idle, *self.busy):
            worker.kill()
        self._idle, self.busy = [], []

    def _is_late(self, worker: _Worker) -> bool:
        limit = self._settings.time_limit_s
        return limit is not None and worker.elapsed() >= limit

    def _wait_for_any(self) -> list[_Worker]:
        timeout = self._settings.time_limit_s
        if timeout is not None:
            timeout = max(0.0, timeout - max(worker.elapsed() for worker in self.busy))
        with selectors.DefaultSelector() as selector:
            for worker in self.busy:
                selector.register(worker.stdout, selectors.EVENT_READ, worker)
            return [key.data for key, _ in selector.select(timeout)]


class _Worker:
    """One worker process and the job that it is at."""

    def __init__(self, settings: CalculatorSettings, directory: Path, log: Path) -> None:
        self._log = log
        self.job: _Job
        self._began = time.perf_counter()
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(settings.n_threads))}
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
        words = settings.model_dump(include={"calculator", "arguments", "info_arguments"})
        self._send({**words, "import_from": str(directory)})
        self._await_ready(settings)

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

    def _await_ready(self, settings: CalculatorSettings) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            answered = bool(selector.select(_START_LIMIT_S))
        answer = self.read() if answered else {"error": f"no answer in {_START_LIMIT_S:g} s"}
        if "ready" in answer:
            return
        self.kill()
        reason = answer.get("error", answer.get("detail"))
        raise LabellingError(
            f"the calculator {settings.calculator!r} with arguments {settings.arguments} cannot "
            f"be made: {reason}"
        )

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1][:200]
        return "nothing"


register_labeller(
    "calculator",
    lambda settings, where: CalculatorLabeller(settings, where.directory),
    CalculatorSettings,
)
