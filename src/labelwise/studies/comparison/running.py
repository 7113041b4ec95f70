"""Running the campaigns of a study in several processes, through kills and interruptions.

A campaign is a directory that goes on from wherever it stopped, and so a study is, too: nothing
is known but what is on disk. A worker process lives through many campaigns, so that it loads the
model once and keeps structures and features; it is replaced when it dies.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from labelwise.campaign.loop import run_campaign
from labelwise.campaign.shared_cache import SharedCache
from labelwise.errors import ArgumentError, LabelwiseError, collect_warnings
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.studies.comparison.cells import (
    count_rounds,
    is_finished,
    mark_finished,
    prepare_cell,
)
from labelwise.studies.comparison.results import CellKey
from labelwise.studies.comparison.study import Cell

_log = logging.getLogger(__name__)

SHARED = "shared"
#: A campaign whose process died is tried so often in all.
MAX_ATTEMPTS = 2
_POLL_S = 1.0
_END_S = 10.0


@dataclass(frozen=True)
class StudyRun:
    """What became of the campaigns of a study.

    Attributes:
        n_cells: All of them.
        n_found: Those that were finished before.
        failures: Those that ended with an error, and its message.
        seconds: Wall time of this run.
    """

    n_cells: int
    n_found: int
    failures: dict[CellKey, str]
    seconds: float


@dataclass
class _Worker:
    """A process and what it is at."""

    process: BaseProcess
    pipe: Connection
    cell: Cell | None = None
    began: float = 0.0


@dataclass
class _Ledger:
    """What is to be done, what is being done, and what failed."""

    waiting: deque[Cell]
    attempts: dict[CellKey, int] = field(default_factory=dict)
    failures: dict[CellKey, str] = field(default_factory=dict)


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    *,
    n_processes: int,
    n_threads: int = 1,
    force: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> StudyRun:
    """Bring every campaign of a study to its end.

    Finished ones are not touched, others go on where they stopped. A campaign that fails does
    not keep others from running. Each that ends is told to the logger ``labelwise``, level INFO.

    Args:
        cells: The campaigns.
        folder: The study's, for what campaigns share.
        n_processes: Campaigns at once, >= 1.
        n_threads: Threads of each.
        force: Begin campaigns anew that were begun with other settings.
        progress: Called with ``rounds``, how many are done and how many there are.

    Raises:
        ArgumentError: n_processes or n_threads < 1.
        StudyError: A campaign was begun with other settings, and ``force`` is not given.
        WriteError: The folder cannot be written to.
        KeyboardInterrupt: Workers are ended before it is raised; nothing is lost.
    """
    if n_processes < 1 or n_threads < 1:
        raise ArgumentError(
            f"n_processes is {n_processes} and n_threads {n_threads}; allowed are >= 1"
        )
    began = time.perf_counter()
    for cell in cells:
        prepare_cell(cell, force=force)
    open_cells = [cell for cell in cells if not is_finished(cell)]
    ledger = _Ledger(deque(_spread(open_cells)))
    counts = {cell.key: count_rounds(cell) for cell in cells}
    crew: list[_Worker] = []
    try:
        while ledger.waiting or any(worker.cell is not None for worker in crew):
            _give_work(crew, ledger, folder, n_processes, n_threads)
            wait([each for worker in crew for each in _signs(worker)], timeout=_POLL_S)
            for worker in tuple(crew):
                if worker.cell is not None:
                    counts[worker.cell.key] = count_rounds(worker.cell)
                _take_report(worker, crew, ledger)
            progress("rounds", sum(counts.values()), sum(cell.n_rounds for cell in cells))
    finally:
        _dismiss(crew)
    return StudyRun(
        len(cells), len(cells) - len(open_cells), ledger.failures, time.perf_counter() - began
    )


def _spread(cells: Sequence[Cell]) -> list[Cell]:
    """Order campaigns so that processes do not make the same fit of round 0 at once.

    Methods come one after another, and under each every pool and seed. Committees, which take
    longest, come early, so that no process is left alone with one at the end.
    """
    methods = list(dict.fromkeys(cell.key.method for cell in cells))
    is_long = {cell.key.method: cell.config.selection.needs_committee for cell in cells}
    first = methods[:1]
    order = [*first, *sorted(methods[1:], key=lambda name: not is_long[name])]
    place = {name: number for number, name in enumerate(order)}
    return sorted(cells, key=lambda cell: place[cell.key.method])


def _give_work(
    crew: list[_Worker], ledger: _Ledger, folder: Path, n_processes: int, n_threads: int
) -> None:
    """Let every process that is free begin a campaign."""
    while ledger.waiting:
        worker = next((worker for worker in crew if worker.cell is None), None)
        if worker is None:
            if len(crew) >= n_processes:
                return
            worker = _hire(folder, n_threads)
            crew.append(worker)
        cell = ledger.waiting.popleft()
        ledger.attempts[cell.key] = ledger.attempts.get(cell.key, 0) + 1
        worker.cell, worker.began = cell, time.perf_counter()
        try:
            worker.pipe.send(str(cell.directory.absolute()))
        except OSError:  # it died while it waited, which the next look finds
            return


def _signs(worker: _Worker) -> tuple[Connection, int]:
    """Return what becomes ready when a worker reports or dies."""
    return worker.pipe, worker.process.sentinel


def _take_report(worker: _Worker, crew: list[_Worker], ledger: _Ledger) -> None:
    """Take in what a worker has to say, or that it died."""
    cell = worker.cell
    try:
        if not worker.pipe.poll():
            if worker.process.is_alive():
                return
            raise EOFError
        is_well, words, texts = worker.pipe.recv()
    except (EOFError, OSError):
        crew.remove(worker)
        worker.process.join(_END_S)
        if cell is not None:
            _try_again(cell, worker.process.exitcode, ledger)
        return
    worker.cell = None
    if cell is None:
        return
    for text in texts:
        _log.info("%s: %s", _describe(cell.key), text)
    seconds = time.perf_counter() - worker.began
    if is_well:
        _log.info("%s: %s, %.0f s", _describe(cell.key), words, seconds)
    else:
        ledger.failures[cell.key] = words
        _log.info("%s failed: %s", _describe(cell.key), words)


def _try_again(cell: Cell, exitcode: int | None, ledger: _Ledger) -> None:
    if ledger.attempts[cell.key] < MAX_ATTEMPTS:
        _log.info(
            "%s: its process died (exit code %s); going on with it", _describe(cell.key), exitcode
        )
        ledger.waiting.append(cell)
        return
    ledger.failures[cell.key] = (
        f"its process died {MAX_ATTEMPTS} times (exit code {exitcode}), perhaps for want of "
        "memory: run again with fewer --workers"
    )
    _log.info("%s failed: %s", _describe(cell.key), ledger.failures[cell.key])


def _describe(key: CellKey) -> str:
    return f"{key.pool} / {key.method} / seed {key.seed}"


def _hire(folder: Path, n_threads: int) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, str(folder.absolute()), n_threads), daemon=True
    )
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _dismiss(crew: Sequence[_Worker]) -> None:
    """End the workers; a campaign bears that at any moment."""
    for worker in crew:
        worker.pipe.close()  # one that waits for work ends by itself
        if worker.cell is not None:
            worker.process.terminate()
    for worker in crew:
        worker.process.join(_END_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _work(pipe: Connection, folder: str, n_threads: int) -> None:
    """Run campaigns until there are no more: the body of a worker process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(n_threads)
    shared = SharedCache(Path(folder) / SHARED)
    while True:
        try:
            directory = Path(pipe.recv())
        except EOFError:
            return
        with collect_warnings() as texts:
            is_well, words = _run(directory, shared)
        pipe.send((is_well, words, texts))


def _run(directory: Path, shared: SharedCache) -> tuple[bool, str]:
    """Run a campaign; return whether it came to its end, and why it ended."""
    try:
        reason = run_campaign(directory, shared=shared)
        mark_finished(directory, reason)
    except LabelwiseError as error:
        return False, str(error)
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"
    return True, reason


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End the process in good order: a lock is given back, and nothing is said."""
    raise SystemExit(1)


def _end_with_parent() -> None:
    """End this process when its parent is gone: nobody would read what it reports."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
