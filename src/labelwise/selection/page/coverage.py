"""What a batch covers: distances before and after, and whom it was drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64

from labelwise.pages.document import (
    Axis,
    CategoryColumn,
    Chart,
    Choice,
    Column,
    Mark,
    Panel,
    Series,
)
from labelwise.selection.measures import Measures

_N_DISTANCES = 61
_MOST_BARS = 15
_MOST_GROUPINGS = 8


def chart_distances(measures: Measures, n_train: int, n_picks: int) -> Chart:
    """Draw the share of the pool within a distance of what is labelled, before and after."""
    known = measures.distance_before if n_train else measures.distance_after
    grid = np.linspace(0.0, float(known.max()) or 1.0, _N_DISTANCES)
    series = []
    if n_train:
        series.append(
            Series("labelled structures", grid, _share_within(measures.distance_before, grid))
        )
    with_batch = "labelled and chosen structures" if n_train else "chosen structures"
    series.append(Series(with_batch, grid, _share_within(measures.distance_after, grid), style=1))
    drawn = np.array([_share_within(each, grid) for each in measures.random_distances])
    several = len(drawn) > 1
    with_random = f"labelled and {n_picks} random" if n_train else f"{n_picks} random"
    series.append(
        Series(
            f"{with_random} structures",
            grid,
            drawn.mean(axis=0),
            drawn.min(axis=0) if several else None,
            drawn.max(axis=0) if several else None,
            style=2,
        )
    )
    times = f"{len(drawn)} draws: their mean, and a band from the least to the most"
    return Chart(
        name="coverage",
        title="How much of the pool is near to a label",
        mark=Mark.LINES,
        x=Axis("kernel distance d"),
        y=Axis("pool within d / %"),
        series=tuple(series),
        caption="Structures of the pool with one of the named structures within the distance d "
        f"under the kernel. Random picks are the yardstick ({times if several else 'one draw'}).",
        band_name="range of random draws" if several else "",
    )


def compare_groups(
    columns: Sequence[Column], picks: Int64[np.ndarray, " k"], first: str | None
) -> tuple[Panel, ...]:
    """Draw shares of the chosen beside shares of the pool, by each of the columns of words.

    Args:
        columns: Of the n structures of the pool; those that are not words are left out.
        picks: Rows of the picks.
        first: Name of the column that is shown at first, if it is there.

    Returns:
        A choice of charts, or one chart, or nothing where no column has several words.
    """
    words = [c for c in columns if isinstance(c, CategoryColumn) and len(c.categories) > 1]
    words = words[:_MOST_GROUPINGS]
    charts = [
        (column.name, _chart_group(column, picks, number)) for number, column in enumerate(words)
    ]
    if not charts:
        return ()
    if len(charts) == 1:
        return (charts[0][1],)
    names = [name for name, _ in charts]
    place = names.index(first) if first in names else 0
    return (Choice("chosen-by", "count by", tuple(charts), place),)


def _chart_group(column: CategoryColumn, picks: Int64[np.ndarray, " k"], number: int) -> Chart:
    n = len(column.categories)
    offered = _count(column.codes, n)
    chosen = _count(column.codes[picks], n)
    order = np.argsort(-(chosen / max(1, chosen.sum()) + offered / max(1, offered.sum())))
    kept = np.sort(order[:_MOST_BARS])
    names = tuple(column.categories[place] for place in kept.tolist())
    left_out = f" The {len(kept)} largest of {n} groups." if len(kept) < n else ""
    return Chart(
        name=f"groups-{number}",
        title=f"Chosen and offered, by {column.name}",
        mark=Mark.BARS,
        x=Axis(column.name),
        y=Axis("share / %"),
        series=(
            Series("of the pool", names, _percent(offered)[kept]),
            Series("of the chosen", names, _percent(chosen)[kept]),
        ),
        caption=f"Of {int(offered.sum()):,} structures in the pool and {int(chosen.sum()):,} "
        f"chosen ones.{left_out}",
    )


def _count(codes: np.ndarray, n: int) -> Int64[np.ndarray, " c"]:
    return np.bincount(codes[codes >= 0], minlength=n).astype(np.int64)


def _percent(counts: Int64[np.ndarray, " c"]) -> Float32[np.ndarray, " c"]:
    return (100.0 * counts / max(1, int(counts.sum()))).astype(np.float32)


def _share_within(
    distance: Float64[np.ndarray, " n"], grid: Float64[np.ndarray, " g"]
) -> Float32[np.ndarray, " g"]:
    """Return the part of the structures at most so far away, %."""
    within = np.searchsorted(np.sort(distance), grid, side="right")
    return (100.0 * within / len(distance)).astype(np.float32)
