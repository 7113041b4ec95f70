"""Errors on their way from a worker process to the one that it works for."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import Any

import cloudpickle

from labelwise.runtime.engines.base import ClusterError
from labelwise.runtime.engines.ordered_run import Done, Raised


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


def pack_error(error: Exception) -> Raised | ErrorParts:
    """Return an error in a form that survives the way to another process, with its trace."""
    trace = "".join(traceback.format_exception(error))
    error.__cause__ = error.__context__ = None  # told by the note; may not survive a pickle
    error.add_note(f"In a worker process:\n{trace.rstrip()}")
    parts = ErrorParts(type(error), error.args, dict(vars(error)))
    for form in (Raised(error), parts):
        try:
            pickle.loads(cloudpickle.dumps(form))  # noqa: S301  # our own bytes
        except Exception:  # noqa: S112  # whatever an error's own pickling may raise
            continue
        return form
    return Raised(ClusterError(f"a worker failed with an error that cannot be sent: {trace}"))


def unpack(outcome: Done[Any] | Raised | ErrorParts) -> Done[Any] | Raised:
    """Return what a worker sent as it was before it was packed."""
    return Raised(outcome.assemble()) if isinstance(outcome, ErrorParts) else outcome
