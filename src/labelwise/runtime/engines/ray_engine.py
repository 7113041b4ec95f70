"""The engine on Ray: one actor a worker, one item an actor, and a driver that keeps the books.

Ray could repeat calls by itself (``max_task_retries``), but it would also repeat calls that
waited behind the lost one, or whose answer was on its way. Here an actor has one call at a time
and is never restarted: a dead one is replaced, and the item it was on, which is known, is sent
out again.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from labelwise.errors import ArgumentError, LabelwiseWarning
from labelwise.runtime.engines.base import ClusterError, Engine, Item, Result, State
from labelwise.runtime.engines.ordered_run import (
    MAX_FAILED_STARTS,
    WINDOW,
    OrderedRun,
    Raised,
    Task,
)
from labelwise.runtime.engines.ray_session import RaySession
from labelwise.runtime.engines.ray_worker import Order, Worker, import_ray
from labelwise.runtime.engines.sent_errors import unpack

_POLL_S = 1.0


@dataclass
class _Slot:
    """A place for one worker process.

    Attributes:
        actor: The process, which may not have started yet.
        call: Its unanswered call; None when it is idle.
        task: The item of that call; None for a greeting.
        run: The map that the item belongs to; None if nobody waits for it any more.
        is_alive: Whether the process has answered once.
        n_failed_starts: Processes in this place that died, one after another, unanswered.
    """

    actor: Any
    call: Any
    task: Task[Any] | None = None
    run: OrderedRun[Any, Any] | None = None
    is_alive: bool = False
    n_failed_starts: int = 0


class RayEngine(Engine):
    """Maps on worker processes of Ray; ``Engine.map`` says what is promised.

    An item whose worker dies, of whatever cause, is sent to another, three times at most; no
    other item is run twice. Workers keep their state between maps with equal ``setup_key``.
    On a cluster the package must be installed, in the same version, on every node.

    Args:
        address: None starts a Ray on this machine and ends it with the engine; "auto",
            "host:port" or "ray://host:port" joins one that runs.
        n_workers: Worker processes, at least 1; None for as many as the CPUs and GPUs of the
            machine or cluster allow at this moment.
        cpus_per_worker: CPUs a worker reserves, >= 0, also its number of threads (at least 1).
        gpus_per_worker: GPUs a worker reserves, >= 0; fractions share one.
        object_store_bytes: Shared memory of a Ray started here, at least 78,643,200 bytes.
            Functions, items and results that are under way stay in it.
        patience_s: Seconds to wait for a worker to start before ``on_wait`` is called, > 0;
            the pause doubles each time.
        on_wait: Called with a message that says what is missing; None for a warning.

    Attributes:
        n_workers: Worker processes, whether they have started already or not.

    Raises:
        ArgumentError: An argument is out of range.
        ClusterError: Ray cannot be started or joined, or never has room for one worker.
        MissingDependencyError: Ray is not installed.
    """

    n_workers: int

    def __init__(
        self,
        address: str | None = None,
        *,
        n_workers: int | None = None,
        cpus_per_worker: int | float = 1,
        gpus_per_worker: int | float = 0,
        object_store_bytes: int = 300_000_000,
        patience_s: float = 30.0,
        on_wait: Callable[[str], object] | None = None,
    ) -> None:
        _check_arguments(n_workers, cpus_per_worker, gpus_per_worker, object_store_bytes)
        self._ray = import_ray()
        self._worker_class = self._ray.remote(Worker)
        self._needs = {"CPU": float(cpus_per_worker), "GPU": float(gpus_per_worker)}
        self._patience_s = patience_s
        self._on_wait = on_wait
        self._map_ids = itertools.count()
        self._kept_setup: tuple[Hashable, Any] | None = None
        self._slots: list[_Slot] = []
        self._session = RaySession(
            address,
            num_cpus=None if n_workers is None else n_workers * cpus_per_worker,
            object_store_bytes=object_store_bytes,
        )
        try:
            self.n_workers = self._count_workers(n_workers)
            self._slots = [self._fill_slot() for _ in range(self.n_workers)]
        except BaseException:
            self.close()
            raise
        self._be_patient()

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

        Raises:
            ClusterError: An item has ended its worker three times, workers die as they start,
                or the engine was closed.
        """
        if not self._slots:
            raise ClusterError("this engine was closed; make a new RayEngine")
        run: OrderedRun[Item, Result] = OrderedRun(
            items, window=WINDOW * self.n_workers, on_retry=on_retry
        )
        order = self._make_order(setup, work, setup_key)
        try:
            while not run.is_over:
                self._collect(timeout_s=0.0)
                self._send(run, order)
                if run.has_next:
                    yield run.hand_out()
                elif not run.is_over and not run.read_ahead(self.n_workers):
                    self._collect(timeout_s=_POLL_S)
        finally:
            self._forget(run)

    def close(self) -> None:
        """End the workers, and Ray itself if it was started here; harmless when repeated."""
        if self._ray.is_initialized():
            for slot in self._slots:
                self._ray.kill(slot.actor)
        self._slots = []
        self._kept_setup = None
        self._session.close()

    def _count_workers(self, n_workers: int | None) -> int:
        total = self._ray.cluster_resources()
        limits = [
            math.floor(total.get(name, 0.0) / need) for name, need in self._needs.items() if need
        ]
        room = min(limits, default=1)
        if room < (n_workers or 1) and (n_workers is None or self._session.is_local):
            raise ClusterError(
                f"Ray has room for {room} workers, {n_workers or 1} are needed: each takes "
                f"{_describe(self._needs)} of {_describe(total)}; ask for fewer workers, or for "
                "less for each of them"
            )
        return n_workers or room

    def _fill_slot(self) -> _Slot:
        """Ask for a new worker process; its answer to the greeting says that it is there."""
        n_threads = max(1, int(self._needs["CPU"]))
        actor = self._worker_class.options(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(n_threads)}},
        ).remote()
        return _Slot(actor, actor.greet.remote())

    def _make_order(
        self, setup: Callable[[], Any], work: Callable[..., Any], setup_key: Hashable | None
    ) -> Order:
        map_id = next(self._map_ids)
        key = ("map", map_id) if setup_key is None else ("key", setup_key)
        if self._kept_setup is None or self._kept_setup[0] != key:
            self._kept_setup = (key, self._ray.put(setup))
        return Order(map_id, key, self._kept_setup[1], self._ray.put(work))

    def _send(self, run: OrderedRun[Item, Result], order: Order) -> None:
        for slot in self._slots:
            if slot.call is None:
                task = run.take()
                if task is None:
                    return
                slot.task, slot.run = task, run
                slot.call = slot.actor.run.remote(order, task.item)

    def _collect(self, *, timeout_s: float) -> None:
        """Take in every answer that is there; wait for the first one if there is none."""
        by_call = {slot.call: slot for slot in self._slots if slot.call is not None}
        if not by_call:
            return
        n_wanted = 1 if timeout_s else len(by_call)
        ready, _ = self._ray.wait(list(by_call), num_returns=n_wanted, timeout=timeout_s)
        for call in ready:
            self._take_answer(by_call[call])
        if not ready and timeout_s:
            self._say_what_is_missing()

    def _take_answer(self, slot: _Slot) -> None:
        task, run = slot.task, slot.run
        try:
            answer = self._ray.get(slot.call)
        except Exception as error:
            if task is None or self._is_loss(error):
                self._replace(slot, error)
                return
            answer = Raised(error)
        slot.call = slot.task = slot.run = None
        slot.is_alive, slot.n_failed_starts = True, 0
        if task is not None and run is not None:
            run.finish(task, unpack(answer))

    def _is_loss(self, error: Exception) -> bool:
        """Whether an error means that a process or node is gone, not that ``work`` failed."""
        causes = self._ray.exceptions
        return isinstance(
            error,
            (
                causes.RayActorError,
                causes.WorkerCrashedError,
                causes.NodeDiedError,
                causes.OutOfMemoryError,
                causes.ObjectLostError,
            ),
        )

    def _replace(self, slot: _Slot, error: Exception) -> None:
        """Put a new process into the place of a dead one, and give its item back."""
        task, run = slot.task, slot.run
        n_failed_starts = 0 if slot.is_alive else slot.n_failed_starts + 1
        if n_failed_starts >= MAX_FAILED_STARTS:
            raise ClusterError(
                f"{n_failed_starts} workers in a row died as they started: {error}; check that "
                "this version of labelwise is installed on every node of the cluster"
            )
        self._ray.kill(slot.actor)  # it may only be out of reach, and would go on working
        fresh = self._fill_slot()
        slot.actor, slot.call, slot.task, slot.run = fresh.actor, fresh.call, None, None
        slot.is_alive, slot.n_failed_starts = False, n_failed_starts
        self._be_patient()
        if task is not None and run is not None:
            run.lose(task, _first_line(error))

    def _forget(self, run: OrderedRun[Any, Any]) -> None:
        """Let the workers finish what nobody waits for; they take new items after that."""
        for slot in self._slots:
            if slot.run is run:
                slot.run = None

    def _be_patient(self) -> None:
        self._pause_s = self._patience_s
        self._speak_at = time.monotonic() + self._pause_s

    def _say_what_is_missing(self) -> None:
        n_missing = sum(not slot.is_alive for slot in self._slots)
        if n_missing == 0 or time.monotonic() < self._speak_at:
            return
        message = (
            f"{n_missing} of {self.n_workers} Ray workers have not started yet: each needs "
            f"{_describe(self._needs)}, free are {_describe(self._ray.available_resources())} of "
            f"{_describe(self._ray.cluster_resources())}; the run goes on with those there are, "
            "so wait, ask for fewer workers, or interrupt it"
        )
        self._pause_s *= 2
        self._speak_at = time.monotonic() + self._pause_s
        if self._on_wait is None:
            warnings.warn(message, LabelwiseWarning, stacklevel=2)
        else:
            self._on_wait(message)


def _check_arguments(
    n_workers: int | None, cpus: int | float, gpus: int | float, object_store_bytes: int
) -> None:
    if n_workers is not None and n_workers < 1:
        raise ArgumentError(f"n_workers must be at least 1, got {n_workers}; None for all")
    if cpus < 0 or gpus < 0:
        raise ArgumentError(
            f"cpus_per_worker and gpus_per_worker must not be negative, got {cpus} and {gpus}"
        )
    if n_workers is None and cpus == 0 and gpus == 0:
        raise ArgumentError("workers that reserve nothing can be any number; give n_workers")
    if object_store_bytes < 78_643_200:
        raise ArgumentError(
            f"object_store_bytes must be at least 78643200 (75 MiB), got {object_store_bytes}"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _describe(resources: dict[str, Any]) -> str:
    return f"{resources.get('CPU', 0.0):g} CPUs and {resources.get('GPU', 0.0):g} GPUs"
