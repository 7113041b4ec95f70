"""What runs inside a worker process of ``ProcessEngine``.

Orders come on one pipe and answers leave on another, each a pickle (an answer within another, so
that one that cannot be read costs no other). The caller's script is never run a second time, and
the process ends when its orders do: with the process that it works for, whatever became of that.
"""

from __future__ import annotations

import pickle
import signal
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import cloudpickle

from labelwise.errors import collect_warnings
from labelwise.runtime.engines.ordered_run import Done, Raised
from labelwise.runtime.engines.sent_errors import ErrorParts, pack_error
from labelwise.runtime.memory import peak_resident_bytes


@dataclass(frozen=True)
class Order:
    """What a map needs, or one item of the last map.

    Attributes:
        setup: Pickled ``setup``; None if the worker has its state.
        work: Pickled ``work``.
        item: The pickled item.
    """

    setup: bytes | None = None
    work: bytes | None = None
    item: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """What came of an order.

    Attributes:
        outcome: What ``work`` returned, or what was raised.
        warnings: Texts of the warnings that were given on purpose.
        seconds: Spent on the order.
        peak_bytes: The largest resident memory of the process so far.
    """

    outcome: Done[Any] | Raised | ErrorParts
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0


class _State:
    """What one setup made, and the function of one map."""

    def __init__(self) -> None:
        self._state: Any = None
        self._work: Any = None

    def answer(self, order: Order) -> Answer:
        """Follow an order; whatever is raised is part of the answer."""
        begun_s = time.perf_counter()
        with collect_warnings() as texts:
            try:
                outcome: Any = Done(self._follow(order))
            except Exception as error:
                outcome = pack_error(error)
        seconds = time.perf_counter() - begun_s
        return Answer(outcome, tuple(texts), seconds, peak_resident_bytes())

    def _follow(self, order: Order) -> Any:
        if order.setup is not None:
            self._state = None  # the old state goes before the new one is made
            self._state = _load(order.setup)()
        if order.work is not None:
            self._work = _load(order.work)
        return None if order.item is None else self._work(self._state, _load(order.item))


def serve(orders: IO[bytes], answers: IO[bytes]) -> None:
    """Say that the process has started, then answer orders until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that it works for decides
    warnings.simplefilter("ignore")  # of libraries: that process gives them, too
    state = _State()
    message = pickle.dumps(b"ready")
    with suppress(EOFError, OSError):  # nobody is left to work for
        while True:
            answers.write(message)
            answers.flush()
            message = pickle.dumps(_dump(state.answer(pickle.load(orders))))  # noqa: S301  # our own bytes


def _dump(answer: Answer) -> bytes:
    try:
        return bytes(cloudpickle.dumps(answer))
    except Exception as error:  # a result that cannot be sent
        unsent = Answer(pack_error(error), answer.warnings, answer.seconds, answer.peak_bytes)
        return bytes(cloudpickle.dumps(unsent))


def _load(message: bytes) -> Any:
    return pickle.loads(message)  # noqa: S301  # our own bytes
