"""Further processes of this machine, and the desk from which each takes one item after another.

``concurrent.futures`` and loky give up every item in flight when one process dies, and do not
say which it was on. Here a thread of this process stands for each worker: it takes an item,
sends it and waits for the answer, and so the item of a dead process is known.
"""

from __future__ import annotations

import operator
import pickle
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sized
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cloudpickle

from labelwise.runtime.engines.ordered_run import OrderedRun, Raised, Task
from labelwise.runtime.engines.process_start import start_process
from labelwise.runtime.engines.process_worker import Answer, Order
from labelwise.runtime.engines.sent_errors import ErrorParts


@dataclass(eq=False)
class Sharing:
    """One map whose items are shared out.

    Attributes:
        run: Its books.
        setup: Makes the state.
        setup_key: Equal keys mean equal states.
        work: What is done with an item.
        items: The stream; may tell how much is left (``operator.length_hint``).
        n_done: Items that were worked on so far.
        busy_s: Seconds that this took, summed over processes.
        is_over: Whether nobody waits for results any more.
    """

    run: OrderedRun[Any, Any]
    setup: Callable[[], Any]
    setup_key: Hashable
    work: Callable[[Any, Any], Any]
    items: Iterable[Any]
    n_done: int = 0
    busy_s: float = 0.0
    is_over: bool = False

    @cached_property
    def fault(self) -> Exception | None:
        """Why ``setup`` or ``work`` cannot be sent to another process; None if they can."""
        try:
            self.pickled = bytes(cloudpickle.dumps(self.setup)), bytes(cloudpickle.dumps(self.work))
        except Exception as error:  # whatever somebody's pickling may raise
            return error
        return None

    def left_s(self) -> float:
        """Return how long one process would be busy with what is left, about.

        Of a stream that does not tell, five times what was done is thought to be left.
        """
        n_left = operator.length_hint(self.items, 5 * self.n_done)
        if isinstance(self.items, Sized):
            n_left -= self.n_done
        return self.busy_s / max(1, self.n_done) * n_left


class Desk:
    """Items that wait for a process, in the order in which they are to be begun."""

    def __init__(self) -> None:
        self._items: deque[tuple[Sharing, Task[Any]]] = deque()
        self._changes = threading.Condition()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, sharing: Sharing, task: Task[Any]) -> None:
        """Lay an item down; one whose worker died comes first."""
        with self._changes:
            place = 0 if task.losses else len(self._items)
            self._items.insert(place, (sharing, task))
            self._changes.notify()

    def take_here(self, sharing: Sharing) -> Task[Any] | None:
        """Return an item of one map that has not ended a process; None if there is none."""
        with self._changes:
            for place, (owner, task) in enumerate(self._items):
                if owner is sharing and not task.losses:
                    del self._items[place]
                    return task
        return None

    def await_map(self) -> Sharing | None:
        """Wait for an item that can be sent and return its map; None when the desk is closed."""
        with self._changes:
            self._changes.wait_for(lambda: self._is_closed or self._find() is not None)
            place = None if self._is_closed else self._find()
            return None if place is None else self._items[place][0]

    def take(self) -> tuple[Sharing, Task[Any]] | None:
        """Return an item that can be sent; None if there is none just now."""
        with self._changes:
            place = self._find()
            if place is None:
                return None
            pair = self._items[place]
            del self._items[place]
            return pair

    def _find(self) -> int | None:
        found = (i for i, (owner, _) in enumerate(self._items) if owner.fault is None)
        return next(found, None)

    def clear(self, sharing: Sharing) -> None:
        """Take away the items of a map."""
        with self._changes:
            self._items = deque(pair for pair in self._items if pair[0] is not sharing)

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changes:
            self._is_closed = True
            self._changes.notify_all()


@dataclass(frozen=True)
class Event:
    """What became of a worker or of its item.

    Attributes:
        worker: The worker.
        task: Its item; None as it starts, or if it had none when it ended.
        sharing: The map of the item.
        content: The answer; None as it starts; in words how it ended.
    """

    worker: Worker
    task: Task[Any] | None
    sharing: Sharing | None
    content: Answer | str | None


class Worker:
    """A process, and the thread that stands for it in this one.

    Args:
        n_threads: Threads of the process.
        desk: Where it takes items from.
        events: Where it says what became of them.

    Attributes:
        begun_s: When it was started, on ``time.perf_counter``.
        is_ready: Whether it has made a state once.
        peak_bytes: Its largest resident memory; 0 where not known yet.
    """

    def __init__(self, n_threads: int, desk: Desk, events: queue.SimpleQueue[Event]) -> None:
        self.begun_s = time.perf_counter()
        self.is_ready = False
        self.peak_bytes = 0
        self._process = start_process(n_threads)
        self._map: Sharing | None = None
        threading.Thread(target=self._attend, args=(desk, events), daemon=True).start()

    def end(self) -> int:
        """End the process at once and return its exit code; harmless when repeated."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError):
                pipe.close()
        return code

    def _attend(self, desk: Desk, events: queue.SimpleQueue[Event]) -> None:
        """Pass items from the desk to the process and its answers back: the thread's body."""
        sharing = task = None
        try:
            self._receive()
            while (wanted := desk.await_map()) is not None:
                # No item waits for a process that imports libraries and loads a model.
                failure = self._prepare(wanted)
                if not self.is_ready:
                    events.put(Event(self, None, None, None))
                if (pair := desk.take()) is None:
                    continue
                sharing, task = pair
                if failure is None and sharing is not wanted:
                    failure = self._prepare(sharing)
                answer = self._ask(task.item) if failure is None else failure
                events.put(Event(self, task, sharing, answer))
                sharing = task = None
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            code = self.end()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            events.put(Event(self, task, sharing, f"the process ended ({how})"))

    def _prepare(self, sharing: Sharing) -> Answer | None:
        """Send what a map needs if it is not there; return the answer if that fails."""
        if self._map is sharing:
            return None
        has_state = self._map is not None and self._map.setup_key == sharing.setup_key
        setup, work = sharing.pickled
        answer = self._send(Order(None if has_state else setup, work))
        self._map = None if isinstance(answer.outcome, Raised | ErrorParts) else sharing
        return answer if self._map is None else None

    def _ask(self, item: Any) -> Answer:
        try:
            order = Order(item=cloudpickle.dumps(item))
        except Exception as error:  # whatever somebody's pickling may raise
            return Answer(Raised(error))
        return self._send(order)

    def _send(self, order: Order) -> Answer:
        pickle.dump(order, self._process.stdin)
        self._process.stdin.flush()
        message = self._receive()
        try:
            answer: Answer = pickle.loads(message)  # noqa: S301  # our own bytes
        except Exception as error:  # whatever somebody's pickling may raise
            return Answer(Raised(error))
        return answer

    def _receive(self) -> bytes:
        message: bytes = pickle.load(self._process.stdout)  # noqa: S301  # our own bytes
        return message


def end_all(workers: list[Worker], desk: Desk) -> None:
    """End processes at once, and their threads."""
    desk.close()
    for worker in workers:
        worker.end()
    workers.clear()
