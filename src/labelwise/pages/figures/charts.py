"""Charts for print."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from labelwise.pages.document import Axis, Chart, Mark, Series
from labelwise.pages.figures.settings import FigureSettings
from labelwise.pages.figures.styles import (
    CHARACTER,
    GROUND,
    Style,
    add_legend,
    clean,
    count_legend_columns,
    find_style,
    make_figure,
    name_axes,
)

_ASPECT, _TALLEST, _LEGEND_LINE = 0.68, 95.0, 3.6
_WIDEST_SQUARE = 110.0
_MANY, _SEVERAL, _FEW_MARKS = 300, 60, 14
_LONGEST_TICK = 28
_BARS_TAKE = 0.8


def draw_chart(chart: Chart, settings: FigureSettings) -> Any:
    """Draw a chart.

    Args:
        chart: What is drawn.
        settings: How.

    Returns:
        A Matplotlib figure; call within ``drawing``.
    """
    words = list_words(chart)
    has_legend = len(chart.series) > 1 and not _is_named_by_axis(chart)
    height = _find_height(chart, words, settings.width, has_legend=has_legend)
    figure = make_figure(settings.width, height)
    axes = figure.subplots()
    draw = _DRAWERS[chart.mark]
    handles = draw(axes, chart, words, settings)
    _name_axes(axes, chart, words, settings.width)
    if chart.diagonal:
        _add_diagonal(axes, chart)
    if has_legend:
        add_legend(figure, handles, [series.name for series in chart.series], settings.width)
    if settings.with_titles:
        axes.set_title(clean(chart.title, 80))
    return figure


def list_words(chart: Chart) -> list[str] | None:
    """Return the words along a chart's axis in order of appearance, None if it has numbers."""
    found = [
        str(word)
        for series in chart.series
        if isinstance(series.x, tuple) or series.x.dtype.kind not in "biuf"
        for word in series.x
    ]
    return list(dict.fromkeys(found)) if found else None


def _find_height(chart: Chart, words: list[str] | None, width: float, *, has_legend: bool) -> float:
    """Return a figure's height, mm: with room for its legend and for words that are turned."""
    names = [clean(series.name) for series in chart.series]
    height = min(width, _WIDEST_SQUARE) if chart.diagonal else min(_ASPECT * width, _TALLEST)
    if has_legend:
        height += _LEGEND_LINE * math.ceil(len(names) / count_legend_columns(names, width))
    if words is not None and _are_turned(words, width):
        longest = max(len(clean(word, _LONGEST_TICK)) for word in words)
        height += 0.7 * CHARACTER * longest
    return height


def _is_named_by_axis(chart: Chart) -> bool:
    """Tell whether each series is one point above its own name."""
    return all(tuple(map(str, series.x)) == (series.name,) for series in chart.series)


def _draw_lines(
    axes: Any, chart: Chart, words: list[str] | None, settings: FigureSettings
) -> list[Any]:
    handles = []
    opacity = 0.18 if len(chart.series) < 6 else 0.1
    for place, series in enumerate(chart.series):
        style, x, y = (
            _style_of(series, place, settings),
            _abscissae(series, words),
            _values(series.y),
        )
        if series.low is not None and series.high is not None:
            axes.fill_between(
                x, series.low, series.high, color=style.colour, alpha=opacity, linewidth=0, zorder=1
            )
        step = max(1, math.ceil(len(x) / _FEW_MARKS))
        (line,) = axes.plot(
            x,
            y,
            color=style.colour,
            linestyle=style.line,
            marker=style.marker,
            markerfacecolor=style.face,
            markeredgewidth=0.7,
            markevery=(place % step, step),
            zorder=3,
        )
        handles.append(line)
    return handles


def _draw_steps(
    axes: Any, chart: Chart, words: list[str] | None, settings: FigureSettings
) -> list[Any]:
    handles = []
    for place, series in enumerate(chart.series):
        style = _style_of(series, place, settings)
        (line,) = axes.step(
            _abscissae(series, words),
            _values(series.y),
            where="post",
            color=style.colour,
            linestyle=style.line,
        )
        handles.append(line)
    return handles


def _draw_points(
    axes: Any, chart: Chart, words: list[str] | None, settings: FigureSettings
) -> list[Any]:
    handles = []
    for place, series in enumerate(chart.series):
        style, x, y = (
            _style_of(series, place, settings),
            _abscissae(series, words),
            _values(series.y),
        )
        many = len(x) > _MANY
        _draw_error_bars(axes, series, x, style.colour)
        (points,) = axes.plot(
            x,
            y,
            linestyle="none",
            color=style.colour,
            marker=style.marker,
            markersize=2.2 if many else 3.0 if len(x) > _SEVERAL else 4.4,
            markerfacecolor=style.face,
            markeredgewidth=0.0 if many else 0.7,
            alpha=0.55 if many else 0.95,
            rasterized=many,
            zorder=3,
        )
        handles.append(points)
    return handles


def _draw_bars(
    axes: Any, chart: Chart, words: list[str] | None, settings: FigureSettings
) -> list[Any]:
    """Draw bars side by side or, of a stacked chart, on one another."""
    handles = []
    is_stacked = chart.mark is Mark.STACKED
    n_series = max(1, len(chart.series))
    room = _find_spacing(chart, words) * _BARS_TAKE
    width = room if is_stacked else room / n_series
    tops: dict[float, float] = {}
    for place, series in enumerate(chart.series):
        style, x = _style_of(series, place, settings), _abscissae(series, words)
        y = np.nan_to_num(_values(series.y))
        if is_stacked:
            bottom = np.array([tops.get(at, 0.0) for at in x.tolist()])
            tops |= dict(zip(x.tolist(), (bottom + y).tolist(), strict=True))
        else:
            bottom = np.zeros(len(x))
            x = x + (place - (n_series - 1) / 2) * width
        look = {"color": style.fill, "hatch": style.hatch, "edgecolor": "white", "linewidth": 0.4}
        handles.append(axes.bar(x, y, width, bottom, **look))
        if not is_stacked:
            _draw_error_bars(axes, series, x, "black")
    axes.margins(x=0.02)
    return handles


def _draw_error_bars(axes: Any, series: Series, x: Float64[np.ndarray, " k"], colour: str) -> None:
    """Draw what a series has of low and high as bars with caps."""
    if series.low is None or series.high is None:
        return
    y = _values(series.y)
    ends = np.stack([y - _values(series.low), _values(series.high) - y])
    axes.errorbar(
        x,
        y,
        yerr=np.maximum(np.nan_to_num(ends), 0.0),
        fmt="none",
        ecolor=colour,
        elinewidth=0.8,
        capsize=2.0,
        capthick=0.8,
        zorder=2,
    )


_Drawer = Callable[[Any, Chart, "list[str] | None", FigureSettings], "list[Any]"]
_DRAWERS: dict[Mark, _Drawer] = {
    Mark.LINES: _draw_lines,
    Mark.STEPS: _draw_steps,
    Mark.POINTS: _draw_points,
    Mark.BARS: _draw_bars,
    Mark.STACKED: _draw_bars,
}


def _style_of(series: Series, place: int, settings: FigureSettings) -> Style:
    number = place if series.style is None else series.style
    return find_style(number, is_grey=settings.is_grey)


def _abscissae(series: Series, words: list[str] | None) -> Float64[np.ndarray, " k"]:
    if words is not None:
        places = {word: place for place, word in enumerate(words)}
        return np.array([places[str(word)] for word in series.x], dtype=np.float64)
    return np.asarray(series.x, dtype=np.float64)


def _values(values: Any) -> Float64[np.ndarray, " k"]:
    return np.asarray(values, dtype=np.float64)


def _find_spacing(chart: Chart, words: list[str] | None) -> float:
    if words is not None:
        return 1.0
    every = np.unique(np.concatenate([_abscissae(series, None) for series in chart.series]))
    return float(np.diff(every).min()) if len(every) > 1 else 1.0


def _name_axes(axes: Any, chart: Chart, words: list[str] | None, width: float) -> None:
    name_axes(axes.figure, axes, chart.x.label, chart.y.label)
    axes.grid(visible=True, axis="y" if words is not None else "both")
    axes.set_axisbelow(True)
    if words is None:
        _scale(axes.xaxis, chart.x, [_abscissae(series, None) for series in chart.series])
    else:
        _write_words(axes, words, width)
    _scale(axes.yaxis, chart.y, _list_ordinates(chart))


def _list_ordinates(chart: Chart) -> list[Float64[np.ndarray, " _"]]:
    """Return all ordinates, ends of error bars among them; bands may leave the axis."""
    found = [_values(series.y) for series in chart.series]
    if chart.mark is not Mark.LINES:
        ends = [end for each in chart.series for end in (each.low, each.high) if end is not None]
        found += [_values(end) for end in ends]
    return found


def _write_words(axes: Any, words: list[str], width: float) -> None:
    labels = [clean(word, _LONGEST_TICK) for word in words]
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(words)), labels, **(turned if _are_turned(words, width) else {}))
    axes.set_xlim(-0.6, len(words) - 0.4)


def _are_turned(words: list[str], width: float) -> bool:
    longest = max(len(clean(word, _LONGEST_TICK)) for word in words)
    return longest * CHARACTER + 1.5 > 0.8 * width / len(words)


def _scale(axis: Any, wanted: Axis, values: Sequence[Float64[np.ndarray, " _"]]) -> None:
    """Use a logarithmic axis where it is asked for and possible, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    known = np.concatenate([np.zeros(0), *(part[np.isfinite(part)] for part in values)])
    if not wanted.is_log or not len(known) or known.min() <= 0:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        return
    axis._set_axes_scale("log")
    low, high = float(known.min()), float(known.max())
    decades = math.log10(high / low) if high > low else 0.0
    steps: tuple[float, ...] = (1,) if decades > 2.5 else (1, 2, 5)
    if decades < 0.35:
        steps = (1, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)
    elif decades < 0.7:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    axis.set_major_locator(LogLocator(base=10, subs=steps))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _add_diagonal(axes: Any, chart: Chart) -> None:
    """Draw y = x, and give both axes the same range."""
    every = [_abscissae(series, None) for series in chart.series]
    every += [_values(series.y) for series in chart.series]
    known = np.concatenate([part[np.isfinite(part)] for part in every])
    if not len(known):
        return
    is_log = axes.get_xscale() == "log" and axes.get_yscale() == "log"
    low, high = float(known.min()), float(known.max())
    margin = 0.04 * ((math.log10(high / low) if is_log else high - low) or 1.0)
    limits = (low / 10**margin, high * 10**margin) if is_log else (low - margin, high + margin)
    axes.plot(limits, limits, color=GROUND, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1.5)
    axes.set(xlim=limits, ylim=limits)
    axes.set_aspect("equal")
