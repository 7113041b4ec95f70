"""Which items of one map are read, lent out, lost and done; no process in sight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic

from labelwise.runtime.engines.base import ClusterError, Item, Result

MAX_LOSSES = 3
MAX_FAILED_STARTS = 3
#: Items read but not handed out, per worker: one runs, one waits, two are done early.
WINDOW = 4


@dataclass
class Task(Generic[Item]):
    """One item on its way through the workers.

    Attributes:
        position: Place of the item in the stream, from 0.
        item: The item.
        losses: Worker processes that died while they were on it.
    """

    position: int
    item: Item
    losses: int = 0


@dataclass(frozen=True)
class Done(Generic[Result]):
    """What ``work`` returned."""

    result: Result


@dataclass(frozen=True)
class Raised:
    """What ``setup``, ``work`` or the stream of items raised."""

    error: Exception


class OrderedRun(Generic[Item, Result]):
    """The bookkeeping of one map: a window that moves along a stream of items.

    An item enters the window when it is read and leaves it when its result is handed out, so
    the window bounds the items in flight and the results that wait for an earlier one.

    Args:
        items: The stream.
        window: Items in the window at any time, at least 1.
        on_retry: Called with a lost item and the reason before it is lent again.
    """

    def __init__(
        self,
        items: Iterable[Item],
        *,
        window: int,
        on_retry: Callable[[Item, str], object] | None = None,
    ) -> None:
        self._items = iter(items)
        self._window = window
        self._on_retry = on_retry
        self._n_read = 0
        self._n_handed_out = 0
        self._end: int | None = None  # position behind the last item that matters
        self._waiting: deque[Task[Item]] = deque()
        self._outcomes: dict[int, Done[Result] | Raised] = {}

    @property
    def is_over(self) -> bool:
        """Whether every result was handed out."""
        return self._n_handed_out == self._end

    @property
    def has_next(self) -> bool:
        """Whether the next result in order is there."""
        return self._n_handed_out in self._outcomes

    def hand_out(self) -> Result:
        """Return the next result in order, or raise what came in its place."""
        outcome = self._outcomes.pop(self._n_handed_out)
        self._n_handed_out += 1
        if isinstance(outcome, Raised):
            raise outcome.error
        return outcome.result

    def take(self) -> Task[Item] | None:
        """Return an item to work on, a lost one first; None if there is none just now."""
        if not self._waiting:
            self.read_ahead(1)
        return self._waiting.popleft() if self._waiting else None

    def read_ahead(self, n_waiting: int) -> bool:
        """Read one item unless ``n_waiting`` wait already; return whether one was read."""
        is_full = self._n_read - self._n_handed_out >= self._window
        if is_full or self._end is not None or len(self._waiting) >= n_waiting:
            return False
        try:
            item = next(self._items)
        except StopIteration:
            self._end = self._n_read
            return False
        except Exception as error:  # raised in its turn, behind the results before it
            self._fail(self._n_read, error)
            return False
        self._waiting.append(Task(self._n_read, item))
        self._n_read += 1
        return True

    def finish(self, task: Task[Item], outcome: Done[Result] | Raised) -> None:
        """Take in what came of an item; after an error no later item is lent any more."""
        if isinstance(outcome, Raised):
            self._fail(task.position, outcome.error)
        else:
            self._outcomes[task.position] = outcome

    def lose(self, task: Task[Item], reason: str) -> None:
        """Take back an item whose worker died, to be lent again or given up."""
        task.losses += 1
        if task.losses >= MAX_LOSSES:
            self._fail(task.position, _give_up(task, reason))
        elif self._matters(task):
            if self._on_retry is not None:
                self._on_retry(task.item, reason)
            self._waiting.appendleft(task)

    def _fail(self, position: int, error: Exception) -> None:
        if self._end is None or position < self._end:
            self._outcomes[position] = Raised(error)
            self._end = position + 1
            self._waiting = deque(task for task in self._waiting if self._matters(task))

    def _matters(self, task: Task[Any]) -> bool:
        return self._end is None or task.position < self._end


def _give_up(task: Task[Any], reason: str) -> ClusterError:
    name = repr(task.item)
    name = name if len(name) <= 200 else f"{name[:200]}..."
    return ClusterError(
        f"item {task.position} of the map, {name}, ended its worker process {task.losses} times; "
        f"the last time: {reason}. The usual cause is memory: make the items smaller, give each "
        "worker more memory, or use one worker to see the item fail in this process"
    )
