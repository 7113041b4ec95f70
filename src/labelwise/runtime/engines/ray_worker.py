"""What runs inside a worker process on Ray."""

from __future__ import annotations

import os
from collections.abc import Hashable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from labelwise.errors import MissingDependencyError
from labelwise.runtime.engines.ordered_run import Done, Raised
from labelwise.runtime.engines.sent_errors import ErrorParts, pack_error


def import_ray() -> ModuleType:
    """Return the module ``ray``.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("ray", "ray", "running on Ray") from error
    return ray


@dataclass(frozen=True)
class Order:
    """What a worker has to have before it can take an item of a map.

    Attributes:
        map_id: Tells the maps of an engine apart.
        setup_key: Equal keys mean equal states.
        setup: Reference to the pickled ``setup`` in the object store.
        work: Reference to the pickled ``work``.
    """

    map_id: int
    setup_key: Hashable
    setup: Any
    work: Any


class Worker:
    """Holds the state of one setup and the function of one map at a time."""

    def __init__(self) -> None:
        self._setup_key: Hashable | None = None
        self._state: Any = None
        self._map_id: int | None = None
        self._work: Any = None

    def greet(self) -> int:
        """Return the process id; the answer says that the process has started."""
        return os.getpid()

    def run(self, order: Order, item: Any) -> Done[Any] | Raised | ErrorParts:
        """Return what ``work`` makes of the item, or what was raised instead."""
        try:
            self._prepare(order)
            return Done(self._work(self._state, item))
        except Exception as error:
            return pack_error(error)

    def _prepare(self, order: Order) -> None:
        ray = import_ray()
        if self._setup_key != order.setup_key:
            self._setup_key = self._state = None  # the old state goes before the new one is made
            self._state = ray.get(order.setup)()
            self._setup_key = order.setup_key
        if self._map_id != order.map_id:
            self._work = ray.get(order.work)
            self._map_id = order.map_id
