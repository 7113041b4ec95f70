"""Heat maps for print."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from labelwise.pages.document import HeatMap
from labelwise.pages.figures.settings import FigureSettings
from labelwise.pages.figures.styles import (
    CHARACTER,
    clean,
    make_figure,
    make_scale,
)

_MOST_LABELS, _MOST_GROUPS, _LONGEST = 32, 24, 18
_TALLEST = 130.0
_BAR = 16.0
#: What stands between a group's name and a member's.
SEPARATOR = " · "


def draw_heat_map(heat_map: HeatMap, settings: FigureSettings) -> Any:
    """Draw a matrix in colours of growing lightness.

    Names of many rows are those of their groups, the part before `` · ``, with lines between.

    Args:
        heat_map: What is drawn.
        settings: How.

    Returns:
        A Matplotlib figure; call within ``drawing``.
    """
    n_rows, n_columns = heat_map.values.shape
    labels = _longest(heat_map.rows) * CHARACTER + 6.0
    inner = max(settings.width - labels - _BAR, 0.4 * settings.width)
    height = inner * max(n_rows, 1) / max(n_columns, 1) + _longest(heat_map.columns) * CHARACTER + 6
    figure = make_figure(settings.width, min(max(height, 0.4 * settings.width), _TALLEST))
    axes = figure.subplots()
    low, high = (None, None) if heat_map.limits is None else heat_map.limits
    image = axes.imshow(
        np.asarray(heat_map.values, dtype=np.float64),
        cmap=make_scale(is_grey=settings.is_grey),
        vmin=low,
        vmax=high,
        interpolation="nearest",
        aspect="equal" if n_rows == n_columns else "auto",
    )
    axes.set_facecolor("#DDDDDD")
    _name_axis(axes, heat_map.rows, is_vertical=True)
    _name_axis(axes, heat_map.columns, is_vertical=False)
    axes.tick_params(length=0, pad=2)
    axes.spines[["top", "right"]].set_visible(True)
    extend = "neither" if heat_map.limits is None else "both"
    bar = figure.colorbar(image, ax=axes, extend=extend, fraction=0.05, pad=0.02, aspect=25)
    bar.set_label(clean(heat_map.label, 40))
    bar.outline.set_linewidth(0.5)
    if settings.with_titles:
        axes.set_title(clean(heat_map.title, 80))
    return figure


def list_groups(names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the name, first place and size of each run of names of one group."""
    groups, first = [], 0
    for group, members in groupby(names, key=lambda name: name.split(SEPARATOR)[0]):
        size = len(list(members))
        groups.append((group, first, size))
        first += size
    return groups


def _longest(names: Sequence[str]) -> int:
    shown = names if len(names) <= _MOST_LABELS else [name for name, *_ in list_groups(names)]
    if len(shown) > _MOST_GROUPS and len(names) > _MOST_LABELS:
        return 0
    return max((len(clean(name, _LONGEST)) for name in shown), default=0)


def _name_axis(axes: Any, names: Sequence[str], *, is_vertical: bool) -> None:
    set_ticks = axes.set_yticks if is_vertical else axes.set_xticks
    style = {} if is_vertical else {"rotation": 90}
    if len(names) <= _MOST_LABELS:
        set_ticks(range(len(names)), [clean(name, _LONGEST) for name in names], **style)
        return
    groups = list_groups(names)
    if len(groups) > _MOST_GROUPS:
        set_ticks([])
        return
    centres = [first + (size - 1) / 2 for _, first, size in groups]
    set_ticks(centres, [clean(name, _LONGEST) for name, *_ in groups], **style)
    draw = axes.axhline if is_vertical else axes.axvline
    for _, first, _ in groups[1:]:
        draw(first - 0.5, color="white", linewidth=0.5)
