"""The ratios of Table 4 as a picture: what every pair says, and what they say together."""

from __future__ import annotations

import math
from typing import Any

from labelwise.errors import MissingDependencyError
from labelwise.studies.comparison.curves import Style, choose_styles
from labelwise.studies.comparison.series import Comparison, Series
from labelwise.studies.comparison.tables import ratio_of

_PAIRS_BELOW = 0.3


def draw_ratios(comparison: Comparison) -> Any:
    """Return a figure of the ratios to the reference, with intervals; None without pairs.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "report", "drawing ratios") from error
    series = [
        each
        for each in comparison.series
        if each is not comparison.find_reference(each) and _has_pairs(comparison, each)
    ]
    if not series:
        return None
    styles = choose_styles(comparison.series, reference=comparison.reference)
    size = 2.15 * len(comparison.shown), 0.9 + 0.27 * len(series)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(comparison.shown), sharey=True, sharex=True)
    for axes, (*what, name) in zip(panels, comparison.shown, strict=True):
        axes.axvline(1.0, color="#555555", linewidth=0.8)
        for row, each in enumerate(series):
            _draw_row(axes, row, comparison, each, (what[0], what[1]), styles[each.label])
        axes.set_title(name, fontsize=9)
        axes.set_xscale("log")
        axes.grid(visible=True, axis="x", alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    _label_axes(panels[0], [each.label for each in series])
    figure.supxlabel(f"ratio to {comparison.reference}", fontsize=9)
    return figure


def _has_pairs(comparison: Comparison, series: Series) -> bool:
    return any(
        math.isfinite(ratio_of(comparison, series, quantity, error).value)
        for quantity, error, _ in comparison.shown
    )


def _draw_row(
    axes: Any,
    row: int,
    comparison: Comparison,
    series: Series,
    what: tuple[str, str],
    style: Style,
) -> None:
    """Draw the geometric mean with its interval, and the pairs as dots below it."""
    estimate = ratio_of(comparison, series, *what)
    reference = comparison.find_reference(series)
    if reference is None or not math.isfinite(estimate.value):
        return
    values, others = series.values(*what), reference.values(*what)
    pairs = [values[place] / others[place] for place in sorted(values.keys() & others.keys())]
    below = [row + _PAIRS_BELOW] * len(pairs)
    axes.plot(pairs, below, ".", color="#777777", markersize=3.0, zorder=2)
    if math.isfinite(estimate.spread.low):
        ends = [estimate.spread.low, estimate.spread.high]
        axes.plot(ends, [row, row], color=style.colour, linewidth=1.6, zorder=3)
    face = style.colour if style.is_filled else "white"
    axes.plot(
        estimate.value,
        row,
        color=style.colour,
        marker=style.marker,
        markerfacecolor=face,
        markersize=5.0,
        zorder=4,
    )


def _label_axes(axes: Any, labels: list[str]) -> None:
    """Name the rows, first at the top, and write plain numbers along the shared axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    low, high = axes.get_xlim()
    subs = (1, 2, 5) if high / low > 10 else (1, 2, 3, 5, 7)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
