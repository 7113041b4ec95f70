"""What runs inside a worker process on Ray."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Hashable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from labelwise.errors import MissingDependencyError
from labelwise.runtime.engines.base import ClusterError
from labelwise.runtime.engines.ordered_run import Done, Raised


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


@dataclass(frozen=True)
class ErrorParts:
    """An error whose constructor does not take its own ``args``, for the way through a pickle."""

    error_type: type[Exception]
    args: tuple[Any, ...]
    attributes: dict[str, Any]

    def assemble(self) -> Exception:
        """Return the error without calling its constructor."""
        error = self.error_type.__new__(self.error_type, *self.args)
        error.args = self.args
        vars(error).update(self.attributes)
        return error


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


def pack_error(error: Exception) -> Raised | ErrorParts:
    """Return an error in a form that survives the way to another process, with its trace."""
    ray = import_ray()
    trace = "".join(traceback.format_exception(error))
    error.__cause__ = error.__context__ = None  # told by the note; may not survive a pickle
    error.add_note(f"In a worker process on Ray:\n{trace.rstrip()}")
    parts = ErrorParts(type(error), error.args, dict(vars(error)))
    for form in (Raised(error), parts):
        try:
            pickle.loads(ray.cloudpickle.dumps(form))  # noqa: S301  # our own bytes
        except Exception:  # noqa: S112  # whatever an error's own pickling may raise
            continue
        return form
    return Raised(ClusterError(f"a worker failed with an error that cannot be sent: {trace}"))
