"""Maps of a pool for print."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool

from labelwise.pages.document import CategoryColumn, NumberColumn, PoolMap, Role
from labelwise.pages.figures.settings import FigureSettings
from labelwise.pages.figures.styles import (
    add_legend,
    clean,
    find_style,
    make_figure,
    make_scale,
    name_axes,
)

_MANY, _MOST_CATEGORIES = 2000, 7
_ASPECT, _LEGEND = 0.85, 10.0
#: Markers of the legend, in units of those of the map.
_MARKER_SCALE = 1.6
_UNKNOWN = "#BDBDBD"
_CHOSEN = {"marker": "*", "s": 34, "facecolor": "none", "edgecolor": "black", "linewidth": 0.7}
#: Marker, as on the page, area in points², colour, the same in grey.
_ROLES = {
    Role.SCREENED: ("x", 5.0, "#9E9E9E", "#A8A8A8"),
    Role.POOL: (".", 5.0, "#BDBDBD", "#CFCFCF"),
    Role.SHORTLISTED: ("^", 9.0, "#009E73", "#9A9A9A"),
    Role.LABELLED: ("D", 10.0, "#0072B2", "#5A5A5A"),
    Role.CHOSEN: ("*", 40.0, "#D55E00", "#000000"),
}
#: Roles whose markers are open, so that they differ without colour.
_OPEN = (Role.SHORTLISTED,)

#: Name and drawn points of each entry of the legend.
Handles = list[tuple[str, Any]]


def draw_pool_map(pool_map: PoolMap, settings: FigureSettings) -> Any:
    """Draw a map, coloured by its column or by the part that structures play.

    Args:
        pool_map: What is drawn.
        settings: How.

    Returns:
        A Matplotlib figure; call within ``drawing``.
    """
    figure = make_figure(settings.width, min(_ASPECT * settings.width, 140.0) + _LEGEND)
    axes = figure.subplots()
    column = next((c for c in pool_map.columns if c.name == pool_map.colour_by), None)
    if isinstance(column, NumberColumn):
        handles = _draw_numbers(figure, axes, pool_map, column, settings)
    elif isinstance(column, CategoryColumn):
        handles = _draw_categories(axes, pool_map, column, settings)
    else:
        handles = _draw_roles(axes, pool_map, settings)
    name_axes(figure, axes, pool_map.x_label, pool_map.y_label)
    if handles:
        names, points = [name for name, _ in handles], [drawn for _, drawn in handles]
        add_legend(figure, points, names, settings.width, marker_scale=_MARKER_SCALE)
    if settings.with_titles:
        axes.set_title(clean(pool_map.title, 80))
    return figure


def _draw_roles(axes: Any, pool_map: PoolMap, settings: FigureSettings) -> Handles:
    handles = []
    for code, role in enumerate(Role):
        found = pool_map.roles == code
        if not found.any():
            continue
        marker, area, colour, grey = _ROLES[role]
        shade = grey if settings.is_grey else colour
        style: dict[str, Any] = {"marker": marker, "s": area, "color": shade, "linewidths": 0.5}
        if role in _OPEN:
            style |= {"facecolors": "none", "edgecolors": shade}
            del style["color"]
        elif role is Role.CHOSEN:
            style |= {"facecolors": shade, "edgecolors": "white", "linewidths": 0.3}
            del style["color"]
        points = _scatter(axes, pool_map, found, code, style)
        handles.append((f"{role} ({int(found.sum()):,})", points))
    return handles


def _draw_numbers(
    figure: Any, axes: Any, pool_map: PoolMap, column: NumberColumn, settings: FigureSettings
) -> Handles:
    known = np.isfinite(column.values)
    handles: Handles = []
    if (~known).any():
        style: dict[str, Any] = {"marker": "x", "s": 3.0, "color": _UNKNOWN, "linewidths": 0.5}
        handles.append(("unknown", _scatter(axes, pool_map, ~known, 1, style)))
    if known.any():
        low, high = (float(x) for x in np.percentile(column.values[known], [1, 99]))
        style = {"marker": ".", "s": 7.0, "c": column.values[known], "linewidths": 0.0}
        style |= {
            "cmap": make_scale(is_grey=settings.is_grey, on_white=True),
            "vmin": low,
            "vmax": high,
        }
        points = _scatter(axes, pool_map, known, 2, style)
        bar = figure.colorbar(points, ax=axes, extend="both", fraction=0.05, pad=0.02)
        unit = f" / {column.unit}" if column.unit else ""
        bar.set_label(clean(f"{column.name}{unit}", 80))
    return handles + _draw_chosen(axes, pool_map)


def _draw_categories(
    axes: Any, pool_map: PoolMap, column: CategoryColumn, settings: FigureSettings
) -> Handles:
    handles: Handles = []
    others = (column.codes < 0) | (column.codes >= _MOST_CATEGORIES)
    if others.any():
        style: dict[str, Any] = {"marker": ".", "s": 4.0, "color": _UNKNOWN, "linewidths": 0.0}
        handles.append(("others", _scatter(axes, pool_map, others, 1, style)))
    for code, name in enumerate(column.categories[:_MOST_CATEGORIES]):
        found = column.codes == code
        if found.any():
            look = find_style(code, is_grey=settings.is_grey)
            style = {"marker": look.marker, "s": 8.0, "color": look.colour, "linewidths": 0.3}
            handles.append((clean(name, 24), _scatter(axes, pool_map, found, 2, style)))
    return handles + _draw_chosen(axes, pool_map)


def _draw_chosen(axes: Any, pool_map: PoolMap) -> Handles:
    """Ring what was chosen, whatever its colour."""
    found = pool_map.roles == list(Role).index(Role.CHOSEN)
    if not found.any():
        return []
    return [(str(Role.CHOSEN), _scatter(axes, pool_map, found, 5, dict(_CHOSEN)))]


def _scatter(
    axes: Any, pool_map: PoolMap, found: Bool[np.ndarray, " n"], order: int, style: dict[str, Any]
) -> Any:
    """Draw some points; very many become a picture within the file."""
    is_many = int(found.sum()) > _MANY
    return axes.scatter(
        pool_map.x[found], pool_map.y[found], zorder=2 + order, rasterized=is_many, **style
    )
