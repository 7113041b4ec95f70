"""Learning curves and rank correlations of a comparison as pictures.

Colour and marker tell the representation, line and fill the rule, so that the pictures can be
read in grey and by colour-blind people. The colours are those of Okabe and Ito, without the
yellow, which is too light for lines on white.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from labelwise.errors import MissingDependencyError
from labelwise.studies.comparison.results import unit_of
from labelwise.studies.comparison.series import Comparison, Series
from labelwise.studies.comparison.statistics import Place, mean_and_band

_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D46", "#7F7F7F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
_RULE_LINES = {"pv": 0, "lcmd": 1, "kc": 2, "kcenter": 2, "center": 2, "top": 3}
_POOLS_A_PICTURE = 3
_UNITS = {
    "meV": "meV",
    "meV/atom": "meV atom$^{-1}$",
    "meV/Å": "meV Å$^{-1}$",
    "meV/Å³": "meV Å$^{-3}$",
}
_WORDS = {"energy": "energy", "forces": "force", "stress": "stress"}
_QUANTITIES = (
    ("energy", "Spearman ρ, energy"),
    ("forces", "Spearman ρ, forces"),
)


@dataclass(frozen=True)
class Style:
    """How a method is drawn everywhere.

    Attributes:
        colour: Hexadecimal.
        line: Matplotlib's line style.
        marker: Matplotlib's marker.
        is_filled: Whether markers are filled; they are not for models from scratch.
        width: Of the line, points.
    """

    colour: str
    line: Any
    marker: str
    is_filled: bool = True
    width: float = 1.3


@dataclass(frozen=True)
class Curve:
    """A line with a band.

    Attributes:
        label: For the legend.
        style: How it is drawn.
        x: Labelled structures or rounds, (r,).
        mean: (r,); NaN where it is not known.
        error: Standard error of the mean, (r,); NaN where it is not known.
    """

    label: str
    style: Style
    x: Int64[np.ndarray, " r"]
    mean: Float64[np.ndarray, " r"]
    error: Float64[np.ndarray, " r"]


def choose_styles(series: Sequence[Series], *, reference: str) -> dict[str, Style]:
    """Give each series a look of its own.

    Args:
        series: In the order in which families take colours.
        reference: The method that is black.

    Returns:
        Label to style. Styles differ for up to eight representations with four rules each.
    """
    families: dict[str, list[str]] = {}
    styles = {}
    for each in series:
        is_filled = each.start != "scratch"
        if each.kernel == reference:
            line = _LINES[0] if is_filled else _LINES[2]
            styles[each.label] = Style("#000000", line, ".", is_filled, 2.0)
            continue
        named, plus, options = each.kernel.partition("+")
        family, _, rule = named.rpartition("-")
        rule += plus + options
        family = (family or named).removesuffix("-k")  # k-center
        members = families.setdefault(family, [])
        if rule not in members:
            members.append(rule)
        place = list(families).index(family)
        line = _RULE_LINES.get(rule, members.index(rule)) % len(_LINES)
        styles[each.label] = Style(
            _COLOURS[place % len(_COLOURS)],
            _LINES[line],
            _MARKERS[place % len(_MARKERS)],
            is_filled,
        )
    return styles


def list_curves(comparison: Comparison, error: str, *, pool: str | None = None) -> list[Curve]:
    """Return the learning curves of finished campaigns, one a method.

    Args:
        comparison: The cells.
        error: One of ``MEASURED``.
        pool: One pool; None averages over pools, for methods that have all pools which any
            method has, with the same numbers of labels.

    Returns:
        Curves from round 0 on, in the order of the series; methods without any are left out.
    """
    styles = choose_styles(comparison.series, reference=comparison.reference)
    pools = {pool for series in comparison.series for pool, _ in series.asked(error)}
    curves = []
    for series in comparison.series:
        asked = series.asked(error)
        cells = {p: c for p, c in asked.items() if pool is None or p[0] == pool}
        values = {place: cell.curves.get(error, ()) for place, cell in cells.items()}
        if pool is None and {p for p, _ in cells} != pools:
            continue
        labels = {cell.n_labels for cell in cells.values()}
        if len(labels) == 1 and all(len(v) == len(next(iter(labels))) for v in values.values()):
            x = np.array(next(iter(labels)), dtype=np.int64)
            curves.append(_curve(series.label, styles[series.label], x, values))
    return curves


def list_correlations(comparison: Comparison, quantity: str, pool: str) -> list[Curve]:
    """Return the rank correlations of committees on a pool over rounds from 1 on, one a method.

    Those of energies or of forces, averaged over seeds; methods without any are left out.
    """
    committees = [
        series
        for series in comparison.series
        if any(cell.rank_correlations for cell in series.cells.values())
    ]
    curves = []
    for number, series in enumerate(committees):
        place = number % len(_COLOURS)
        style = Style(_COLOURS[place], _LINES[number % len(_LINES)], _MARKERS[place])
        values = {
            place: cell.rank_correlations[quantity]
            for place, cell in series.cells.items()
            if place[0] == pool and cell.rank_correlations.get(quantity)
        }
        if values and len({len(each) for each in values.values()}) == 1:
            x = np.arange(1, len(next(iter(values.values()))) + 1, dtype=np.int64)
            curves.append(_curve(series.label, style, x, values))
    return curves


def _curve(
    label: str,
    style: Style,
    x: Int64[np.ndarray, " r"],
    values: Mapping[Place, Sequence[float]],
) -> Curve:
    return Curve(label, style, x, *mean_and_band(values))


def draw_pictures(comparison: Comparison) -> dict[str, bytes]:
    """Draw all pictures of a comparison.

    ``curves``: averaged over pools. ``curves_pools``: pool by pool, three a picture, if there
    are several. ``committees``: rank correlations, if there are committees. Bands are one
    standard error of the mean either way: over pools where several are averaged, else over seeds.

    Returns:
        File name to content, each picture as PNG and as SVG; empty if nothing is finished.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    figures: dict[str, Any] = {}
    panels = _list_panels(comparison)
    mean = [[list_curves(comparison, error)] for error, _ in panels]
    pools = [p for p in comparison.pools if list_curves(comparison, panels[0][0], pool=p)]
    if any(curves for row in mean for curves in row):
        over = f"mean of {len(pools)} pools" if len(pools) > 1 else "".join(pools)
        figures["curves"] = _draw_wide([row[0] for row in mean], panels, over)
    if len(pools) > 1:
        for number, start in enumerate(range(0, len(pools), _POOLS_A_PICTURE), start=1):
            some = pools[start : start + _POOLS_A_PICTURE]
            grid = [[list_curves(comparison, e, pool=p) for p in some] for e, _ in panels]
            name = "curves_pools" if number == 1 else f"curves_pools_{number}"
            figures[name] = _draw_grid(grid, [label for _, label in panels], some)
    correlations = [[list_correlations(comparison, q, p) for p in pools] for q, _ in _QUANTITIES]
    if any(curves for row in correlations for curves in row):
        labels = [label for _, label in _QUANTITIES]
        figures["committees"] = _draw_grid(correlations, labels, pools, is_correlation=True)
    pictures = {}
    for name, figure in figures.items():
        for suffix in ("png", "svg"):
            pictures[f"{name}.{suffix}"] = render(figure, suffix)
    return pictures


def _list_panels(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """Return the errors that are drawn, and the labels of their axes."""
    return tuple(
        (error, f"{_WORDS[error.partition('_')[0]]} RMSE / {_UNITS[unit_of(error)]}")
        for _, error, _ in comparison.areas
    )


def _draw_wide(panels: Sequence[list[Curve]], names: Sequence[tuple[str, str]], title: str) -> Any:
    """Draw energy, forces and stress side by side."""
    figure = _make_figure(4.3 * len(panels), 3.3)
    row = figure.subplots(1, len(panels))
    for axes, curves, (_, label) in zip(row, panels, names, strict=True):
        _draw_panel(axes, curves)
        axes.set_ylabel(label)
        axes.set_xlabel("labelled structures")
        _use_log_scale(axes, curves)
        axes.set_title(title, fontsize=9)
    _add_legend(figure, [panels])
    return figure


def _draw_grid(
    grid: Sequence[Sequence[list[Curve]]],
    labels: Sequence[str],
    pools: Sequence[str],
    *,
    is_correlation: bool = False,
) -> Any:
    """Draw a column a pool, a row a quantity."""
    figure = _make_figure(1.9 + 2.3 * len(pools), 2.3 * len(grid))
    share = "all" if is_correlation else "row"
    rows = figure.subplots(len(grid), len(pools), squeeze=False, sharey=share, sharex="col")
    for all_axes, panels, label in zip(rows, grid, labels, strict=True):
        for axes, curves in zip(all_axes, panels, strict=True):
            if is_correlation:
                axes.axhline(0.0, color="#555555", linewidth=0.8)
            _draw_panel(axes, curves)
        if not is_correlation:
            _use_log_scale(all_axes[0], [curve for curves in panels for curve in curves])
        all_axes[0].set_ylabel(label)
    for axes, pool in zip(rows[0], pools, strict=True):
        axes.set_title(pool, fontsize=9)
    for axes in rows[-1]:
        axes.set_xlabel("round" if is_correlation else "labelled structures")
    _add_legend(figure, grid)
    return figure


def _draw_panel(axes: Any, curves: Sequence[Curve]) -> None:
    for number, curve in enumerate(curves):
        style = curve.style
        step = max(1, math.ceil(len(curve.x) / 8))
        opacity = 0.16 if len(curves) < 6 else 0.09
        low, high = curve.mean - curve.error, curve.mean + curve.error
        axes.fill_between(curve.x, low, high, color=style.colour, alpha=opacity, linewidth=0)
        axes.plot(
            curve.x,
            curve.mean,
            color=style.colour,
            linestyle=style.line,
            linewidth=style.width,
            marker=style.marker,
            markersize=4.0,
            markerfacecolor=style.colour if style.is_filled else "white",
            markevery=(number % step, step),
            label=curve.label,
            zorder=4 if style.width > 1.5 else 3,
        )
    axes.grid(visible=True, which="major", alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.xaxis.get_major_locator().set_params(integer=True)


def _use_log_scale(axes: Any, curves: Sequence[Curve]) -> None:
    """Use a logarithmic axis where all means are positive, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    means = np.concatenate([np.zeros(0), *(curve.mean for curve in curves)])
    means = means[np.isfinite(means)]
    if not len(means) or means.min() <= 0:
        return
    axes.set_yscale("log")
    bottom, top = means.min() / 1.15, means.max() * 1.15
    axes.set_ylim(bottom, top)
    steps = (1, 2, 5) if top / bottom > 4 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=steps))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _add_legend(figure: Any, grid: Sequence[Sequence[list[Curve]]]) -> None:
    """Put one legend for all panels to their right."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        found, labels = axes.get_legend_handles_labels()
        handles.update(zip(labels, found, strict=True))
    order = dict.fromkeys(curve.label for row in grid for curves in row for curve in curves)
    figure.legend(
        [handles[label] for label in order],
        list(order),
        loc="outside right center",
        frameon=False,
        fontsize=8,
        handlelength=3.6,
    )


def _make_figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "report", "drawing learning curves") from error
    return Figure(figsize=(width, height), layout="constrained")


def render(figure: Any, suffix: str) -> bytes:
    """Return a Matplotlib figure as PNG or SVG; the same figure gives the same bytes."""
    from matplotlib import rc_context

    content = io.BytesIO()
    metadata = {"Date": None} if suffix == "svg" else None
    with rc_context({"svg.hashsalt": "labelwise"}):
        figure.savefig(content, format=suffix, dpi=200, metadata=metadata)
    return content.getvalue()
