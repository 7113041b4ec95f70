"""The engine that needs nothing: one process, one item after another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator

from labelwise.runtime.engines.base import Engine, Item, KeptState, Result, State


class LocalEngine(Engine):
    """Maps in this process; what any other engine has to equal.

    Attributes:
        n_workers: Always 1.
    """

    n_workers: int = 1

    def __init__(self) -> None:
        self._kept = KeptState()

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
                state = setup() if setup_key is None else self._kept.get(setup_key, setup)
                is_ready = True
            yield work(state, item)  # type: ignore[arg-type]  # State may itself allow None

    def close(self) -> None:
        """Let go of the state of the last map."""
        self._kept.forget()
