"""The engine for the cores of one machine: this process, and others when the work pays for them."""

from __future__ import annotations

import queue
import time
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from labelwise.errors import ArgumentError, LabelwiseWarning
from labelwise.runtime.cores import torch_threads, usable_cores
from labelwise.runtime.engines.base import ClusterError, Engine, Item, KeptState, Result, State
from labelwise.runtime.engines.ordered_run import (
    MAX_FAILED_STARTS,
    WINDOW,
    Done,
    OrderedRun,
    Raised,
    Task,
)
from labelwise.runtime.engines.process_crew import Desk, Event, Sharing, Worker, end_all
from labelwise.runtime.engines.process_start import expected_start_s
from labelwise.runtime.engines.sent_errors import unpack
from labelwise.runtime.memory import available_bytes, resident_bytes

_AHEAD = 2  # items that wait for each process, so that none is idle while this one is busy
_LEAST_SHARE = 0.8  # of a core that this process must get: on a full machine none is free
_POLL_S = 1.0


class ProcessEngine(Engine):
    """Maps in this process and in further ones of this machine; see ``Engine.map``.

    This process begins at once. Others are started when what is left pays for the seconds that
    one needs to start, as far as there are memory and free cores. Each computes with ``n_threads``
    threads, as this one does. Results come in the same order with any number of workers.

    Functions and items are sent to workers, which are copies of this process or programs of their
    own (``process_start``): a script needs no ``if __name__ == "__main__":``, and functions of a
    notebook can be used. Their warnings are
    given here, each once. They end at once when the engine is closed, and with this process.

    Args:
        n_workers: Processes, this one among them, >= 1, started as soon as there are items for
            them; None for as many as there are usable cores, started when they pay.
        n_threads: Threads of each process, >= 1.
        memory_bytes: What all processes may occupy together; None for what is free.

    Attributes:
        n_workers: Processes at most, this one among them.

    Raises:
        ArgumentError: An argument is out of range.

    Examples:
        >>> with ProcessEngine(2) as engine:
        ...     list(engine.map(lambda: 10, lambda ten, item: ten * item, range(3)))
        [0, 10, 20]
    """

    n_workers: int

    def __init__(
        self,
        n_workers: int | None = None,
        *,
        n_threads: int = 1,
        memory_bytes: int | None = None,
    ) -> None:
        if (n_workers is not None and n_workers < 1) or n_threads < 1:
            raise ArgumentError(
                f"n_workers is {n_workers} and n_threads {n_threads}; allowed are numbers from 1"
            )
        self._waits_until_it_pays = n_workers is None
        self.n_workers = n_workers or max(1, usable_cores() // n_threads)
        self._n_threads = n_threads
        self._memory_bytes = memory_bytes
        self._kept = KeptState()
        self._told: set[str] = set()
        self._start_s = expected_start_s(n_threads)
        self._here_s = self._cpu_s = 0.0  # on items in this process, by the clock and of a core
        self._n_failed_starts = 0
        self._desk = Desk()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._workers: list[Worker] = []
        self._end = weakref.finalize(self, end_all, self._workers, self._desk)

    def map(
        self,
        setup: Callable[[], State],
        work: Callable[[State, Item], Result],
        items: Iterable[Item],
        *,
        setup_key: Hashable | None = None,
        on_retry: Callable[[Item, str], object] | None = None,
    ) -> Iterator[Result]:
        """Yield ``work(setup(), item)`` for every item, in their order; see ``Engine.map``.

        A sequence, or a stream whose ``__length_hint__`` tells how many items are to come, lets
        the engine know what is left.

        Raises:
            ClusterError: An item has ended its worker three times, workers die as they start,
                or the engine was closed.

        Warns:
            LabelwiseWarning: ``setup`` or ``work`` cannot be sent to other processes.
        """
        if not self._end.alive:
            raise ClusterError("this engine was closed; make a new ProcessEngine")
        run: OrderedRun[Item, Result] = OrderedRun(
            items, window=WINDOW * self.n_workers, on_retry=on_retry
        )
        key = object() if setup_key is None else setup_key
        this = Sharing(run, setup, key, work, items)
        try:
            while not run.is_over:
                self._take_events(timeout_s=0.0)
                self._share(this)
                if run.has_next:
                    yield run.hand_out()
                elif (task := self._desk.take_here(this)) is not None:
                    self._work_here(this, task)
                elif not run.is_over:
                    self._take_events(timeout_s=_POLL_S)
        finally:
            self._forget(this)

    def close(self) -> None:
        """End the other processes at once; harmless when repeated."""
        self._kept.forget()
        self._end()

    def _share(self, this: Sharing) -> None:
        """Read items for this process and for the others, and start others if that pays."""
        self._read(this, 1 + _AHEAD * len(self._workers))
        while len(self._workers) < self.n_workers - 1 and self._pays(this) and self._has_room():
            n_starting = sum(not worker.is_ready for worker in self._workers)
            self._read(this, 2 + n_starting)
            if len(self._desk) < 2 + n_starting or not self._can_send(this):
                return
            self._start()

    def _read(self, this: Sharing, n_wanted: int) -> None:
        """Read items until so many wait."""
        while len(self._desk) < n_wanted and (task := this.run.take()) is not None:
            self._desk.put(this, task)

    def _pays(self, this: Sharing) -> bool:
        """Whether another worker would spare more time than it takes to start."""
        if not self._waits_until_it_pays:
            return True
        is_alone = self._cpu_s > _LEAST_SHARE * self._here_s
        return is_alone and this.left_s() > 2.0 * self._start_s * (1 + len(self._workers))

    def _has_room(self) -> bool:
        """Whether the memory suffices for another worker as large as the largest."""
        here = resident_bytes()
        peaks = [worker.peak_bytes for worker in self._workers]
        size = max(peaks, default=0) or here
        others = sum(peak or size for peak in peaks)
        free = available_bytes() - others
        if self._memory_bytes is not None:
            free = min(free, self._memory_bytes - here - others)
        return size <= free

    def _can_send(self, this: Sharing) -> bool:
        if this.fault is not None:
            self._tell(f"one core is used, since the work cannot be sent: {this.fault!r}")
        return this.fault is None

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            warnings.warn(text, LabelwiseWarning, stacklevel=2)

    def _start(self) -> None:
        self._workers.append(Worker(self._n_threads, self._desk, self._events))

    def _work_here(self, this: Sharing, task: Task[Any]) -> None:
        try:
            with torch_threads(self._n_threads):
                state = self._kept.get(this.setup_key, this.setup)
                begun_s, cpu_begun_s = time.perf_counter(), time.thread_time()
                result = this.work(state, task.item)
        except Exception as error:  # raised in its turn, behind the results before it
            this.run.finish(task, Raised(error))
            return
        seconds = time.perf_counter() - begun_s
        self._here_s += seconds
        self._cpu_s += time.thread_time() - cpu_begun_s
        this.busy_s += seconds
        this.n_done += 1
        this.run.finish(task, Done(result))

    def _take_events(self, *, timeout_s: float) -> None:
        """Take in all that has happened; wait for the first event if nothing has."""
        with suppress(queue.Empty):
            event = self._events.get(timeout=timeout_s) if timeout_s else self._events.get_nowait()
            while True:
                self._take_event(event)
                event = self._events.get_nowait()

    def _take_event(self, event: Event) -> None:
        worker, content = event.worker, event.content
        if isinstance(content, str):
            self._replace(worker, content)
            if event.sharing is not None and event.task is not None and not event.sharing.is_over:
                event.sharing.run.lose(event.task, content)
        elif content is None:
            worker.is_ready, self._n_failed_starts = True, 0
            self._start_s = time.perf_counter() - worker.begun_s
        elif event.sharing is not None and event.task is not None:
            worker.peak_bytes = max(worker.peak_bytes, content.peak_bytes)
            event.sharing.busy_s += content.seconds
            event.sharing.n_done += 1
            event.sharing.run.finish(event.task, unpack(content.outcome))
            for text in content.warnings:
                self._tell(text)

    def _replace(self, worker: Worker, reason: str) -> None:
        """Start a process in place of a dead one."""
        self._workers.remove(worker)
        self._n_failed_starts += not worker.is_ready
        if self._n_failed_starts >= MAX_FAILED_STARTS:
            raise ClusterError(
                f"{self._n_failed_starts} worker processes in a row died as they started "
                f"({reason}); use one worker"
            )
        self._start()

    def _forget(self, this: Sharing) -> None:
        """Let the workers finish what nobody waits for; they take new items after that."""
        this.is_over = True
        self._desk.clear(this)
        if type(this.setup_key) is object:  # nobody asks for it again
            self._kept.forget(this.setup_key)
