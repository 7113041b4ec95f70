"""The engine that needs nothing: one process, one item after another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from labelwise.runtime.engines.base import Item, Result, State


class LocalEngine:
    """Maps in this process; what any other engine has to equal.

    Attributes:
        n_workers: Always 1.
    """

    n_workers: int = 1

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Any] | None = None

    def map(
        self,
        setup: Callable[[], State],
        work: Callable[[State, Item], Result],
        items: Iterable[Item],
        *,
        setup_key: Hashable | None = None,
        on_retry: Callable[[Item, str], object] | None = None,  # noqa: ARG002
    ) -> Iterator[Result]:
        """Yield ``work(setup(), item)`` for every item; see ``Engine.map``.

        ``on_retry`` is never called: there is no other process to lose.
        """
        state: State | None = None
        is_ready = False
        for item in items:
            if not is_ready:
                state, is_ready = self._prepare(setup, setup_key), True
            yield work(state, item)  # type: ignore[arg-type]  # State may itself allow None

    def close(self) -> None:
        """Let go of the state of the last map."""
        self._kept = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, setup: Callable[[], State], setup_key: Hashable | None) -> State:
        if setup_key is None:
            return setup()
        if self._kept is None or self._kept[0] != setup_key:
            self._kept = None  # the old state goes before the new one is made
            self._kept = (setup_key, setup())
        state: State = self._kept[1]
        return state
