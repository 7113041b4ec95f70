"""Where the time of a run goes, stage by stage."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from labelwise.errors import ArgumentError

T = TypeVar("T")

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")

#: Called with a stage's name, what is done of it, and the total where it is known.
ProgressCallback = Callable[[str, int, int | None], None]


def ignore_progress(_stage: str, _n_done: int, _n_total: int | None) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Stage:
    """Seconds spent in one stage and the structures that passed through it."""

    name: str
    seconds: float
    n_structures: int

    @property
    def structures_per_second(self) -> float:
        """Structures per second; 0 when the stage took no measurable time."""
        return self.n_structures / self.seconds if self.seconds > 0 else 0.0


class Stopwatch:
    """Adds up wall time by stage; stages that nest are charged once, to the inner one."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._running: list[str] = []
        self._since = time.perf_counter()

    @contextmanager
    def stage(self, name: str, n_structures: int = 0) -> Iterator[None]:
        """Charge the time of the enclosed block to a stage."""
        self.count(name, n_structures)
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def count(self, name: str, n_structures: int) -> None:
        """Count structures that passed through a stage."""
        self._counts[name] = self._counts.get(name, 0) + n_structures

    def charge(self, name: str, seconds: float) -> None:
        """Charge some of the time of the stage that is running to another."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        self._seconds[self._running[-1]] = self._seconds.get(self._running[-1], 0.0) - seconds

    def iterate(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Charge the time that an iterable needs for each item to a stage."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            self.count(name, 1)
            yield item

    def stages(self) -> tuple[Stage, ...]:
        """Return what was measured, in the order in which stages first began."""
        return tuple(
            Stage(name, self._seconds.get(name, 0.0), count) for name, count in self._counts.items()
        )

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._running:
            name = self._running[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


@contextmanager
def open_progress(wanted: ProgressCallback | bool) -> Iterator[ProgressCallback]:
    """Give what reports progress to Python's callers.

    Args:
        wanted: A callback; or True for bars on standard error, which are drawn in terminals and
            notebooks only, and False for nothing.
    """
    if not isinstance(wanted, bool):
        yield wanted
        return
    from rich.console import Console  # slow to import

    from labelwise.runtime.progress_bars import show_bars

    console = Console(stderr=True)
    if not (wanted and (console.is_terminal or console.is_jupyter)):
        yield ignore_progress
        return
    with show_bars(console) as report:
        yield report


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``45m``, ``2h``, ``90s``, ``1h30m`` or ``0.5h``.

    Raises:
        ArgumentError: It is none, or zero.
    """
    found = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    parts = found.groups() if found else (None, None, None)
    seconds = sum(
        float(part) * unit for part, unit in zip(parts, _UNITS.values(), strict=True) if part
    )
    if not seconds > 0:
        raise ArgumentError(
            f"the duration is {text!r}; allowed are hours, minutes and seconds above 0, such as "
            "45m, 2h, 90s, 1h30m or 0.5h"
        )
    return seconds
