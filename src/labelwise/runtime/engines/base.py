"""What every engine promises, and how it fails.

::

    LabelwiseError
    └── ClusterError   (RuntimeError)   workers cannot be had, or one item keeps ending them
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from labelwise.errors import LabelwiseError

Me = TypeVar("Me")
State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")


class ClusterError(LabelwiseError, RuntimeError):
    """Workers cannot be started or reached, or an item ends every worker that takes it."""


@dataclass(frozen=True)
class Ready(Generic[State]):
    """The setup of a state that is there already: used as it is here, copied for a worker."""

    state: State

    def __call__(self) -> State:
        """Return the state."""
        return self.state


class Engine(ABC):
    """Runs one function over many items, in this process or in many.

    Attributes:
        n_workers: Processes that work at the same time, at least 1.
    """

    n_workers: int

    @abstractmethod
    def map(
        self,
        setup: Callable[[], State],
        work: Callable[[State, Item], Result],
        items: Iterable[Item],
        *,
        setup_key: Hashable | None = None,
        on_retry: Callable[[Item, str], object] | None = None,
    ) -> Iterator[Result]:
        """Yield ``work(setup(), item)`` for every item, in the order of the items.

        Nothing starts before the first result is asked for, and the stream is read only a
        bounded number of items ahead of the result that was handed out last. Arrays that come
        out of another process may be read-only: add to an array of one's own, not to a result.

        Args:
            setup: Makes what every item needs (a loaded model, a labelled set); called at
                most once in each worker process and map. What it refers to travels once.
            work: What is done with an item. It may be run a second time on an item whose
                worker died, so a file that it writes must appear whole or not at all.
            items: A stream; each item is sent to one worker, so it should be small: the
                place of a chunk rather than the chunk.
            setup_key: Names what ``setup`` makes. Successive maps of one engine with equal
                keys share the states that the workers have already.
            on_retry: Called in this process with an item whose worker died and the reason,
                before the item is sent out again.

        Raises:
            ClusterError: An item has ended its worker three times, or no worker can start.
            Exception: What ``setup``, ``work`` or the stream itself raised, as the same type,
                after the results of all earlier items; it is not tried again.
        """

    @abstractmethod
    def close(self) -> None:
        """End the workers and whatever was started for them; harmless when repeated."""

    def __enter__(self: Me) -> Me:
        """Return the engine; ``with`` closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the engine."""
        self.close()


class KeptState:
    """What the setup of the last map made in this process."""

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Any] | None = None

    def get(self, key: Hashable, setup: Callable[[], Any]) -> Any:
        """Return the state of a key; that of another key goes before the new one is made."""
        if self._kept is None or self._kept[0] != key:
            self._kept = None
            self._kept = (key, setup())
        return self._kept[1]

    def forget(self, key: Hashable = None) -> None:
        """Let go of the state, or of that of one key."""
        if key is None or (self._kept is not None and self._kept[0] == key):
            self._kept = None
