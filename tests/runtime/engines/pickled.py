"""An engine that sends everything, to the process that it is in."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import cloudpickle

from labelwise.runtime.engines import LocalEngine
from labelwise.runtime.engines.base import Item, Result, State


def send(thing: Any) -> Any:
    return pickle.loads(cloudpickle.dumps(thing))


class PickledEngine(LocalEngine):
    """What a worker process would be sent and would send, without its start."""

    n_workers = 2

    def __init__(self) -> None:
        super().__init__()
        self.n_items = 0

    def map(
        self,
        setup: Callable[[], State],
        work: Callable[[State, Item], Result],
        items: Iterable[Item],
        *,
        setup_key: Hashable | None = None,
        on_retry: Callable[[Item, str], object] | None = None,
    ) -> Iterator[Result]:
        setup, work = send((setup, work))
        for result in super().map(setup, work, map(send, items)):
            self.n_items += 1
            yield send(result)
