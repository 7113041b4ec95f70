"""Progress as bars, one for each stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from labelwise.runtime.timing import ProgressCallback


class _Rate(ProgressColumn):
    """Structures a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


@contextmanager
def show_bars(
    console: Console, totals: Mapping[str, int] = MappingProxyType({})
) -> Iterator[ProgressCallback]:
    """Give a callback that draws one bar for each stage.

    Args:
        console: Where to draw: a terminal or a notebook.
        totals: Totals of stages that do not know theirs, by name.

    Yields:
        A callback that takes a stage's name, what is done and the total if known.
    """
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, n_done: int, n_total: int | None) -> None:
            n_total = totals.get(stage) if n_total is None else n_total
            if stage not in tasks:
                _finish(bars, list(tasks.values()))
                tasks[stage] = bars.add_task(stage, total=n_total)
            bars.update(tasks[stage], completed=n_done, total=n_total)

        yield report
        _finish(bars, list(tasks.values()))


def _finish(bars: Progress, tasks: list[TaskID]) -> None:
    """Close the bars of stages whose total was unknown or counted what was set aside."""
    for task in bars.tasks:
        if task.id in tasks and not task.finished:
            bars.update(task.id, total=task.completed)
