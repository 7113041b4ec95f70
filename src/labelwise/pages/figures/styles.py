"""The look of figures: what a style's number is drawn with, type, and texts that cannot harm.

Colours are those of Okabe and Ito without the yellow, which is too light on white, in the order
of the page. Dash, marker and hatching change with the number too, so that everything can be told
apart in grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelwise.errors import MissingDependencyError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_GREYS = ("#000000", "#7A7A7A", "#3C3C3C", "#9A9A9A", "#5C5C5C", "#8A8A8A", "#282828")
_FILLS = ("#3C3C3C", "#B4B4B4", "#787878", "#E0E0E0", "#969696", "#C8C8C8", "#5A5A5A")
_MARKERS = ("o", "s", "D", "^", "X", "v", "*", "P")
_LINES: tuple[Any, ...] = (
    "-",
    (0, (4.5, 1.6)),
    (0, (1, 1.3)),
    (0, (5, 1.4, 1, 1.4)),
    (0, (8, 2)),
    (0, (5, 1.4, 1, 1.4, 1, 1.4)),
)
_HATCHES = ("", "//////", "......", "xxxxxx", "------", "\\\\\\\\\\\\", "++++++", "oooo")
#: Millimetres an inch has, and about what a character of a legend and of a label takes.
MM, CHARACTER, _LABEL_CHARACTER = 25.4, 1.35, 1.6
#: Of lightness that only grows, so that it may be printed in grey.
_SCALE, _GREY_SCALE = "cividis", "gray"
#: Parts of the scales that can be seen on white.
_LIGHTEST, _LIGHTEST_GREY = 0.92, 0.78
GROUND = "#555555"
_LONGEST = 48

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.35,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "text.parse_math": False,  # names may have dollar signs
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "labelwise",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Style:
    """What a style's number is drawn with.

    Attributes:
        colour: Of lines and markers.
        fill: Of bars.
        line: Matplotlib's line style.
        marker: Matplotlib's marker.
        face: Of markers; white from the second time round on.
        hatch: Of bars.
    """

    colour: str
    fill: str
    line: Any
    marker: str
    face: str
    hatch: str


def find_style(number: int, *, is_grey: bool) -> Style:
    """Return the look of a style's number, different for the first few dozen.

    Args:
        number: 0 or more.
        is_grey: Whether colours are greys.
    """
    colours = _GREYS if is_grey else COLOURS
    colour = colours[number % len(colours)]
    turn = number // len(_MARKERS)
    return Style(
        colour=colour,
        fill=_FILLS[number % len(_FILLS)] if is_grey else colour,
        line=_LINES[number % len(_LINES)],
        marker=_MARKERS[number % len(_MARKERS)],
        face="white" if turn % 2 else colour,
        hatch=_HATCHES[number % len(_HATCHES)],
    )


@contextmanager
def drawing() -> Iterator[None]:
    """Use the look of figures, whatever the reader's own settings of Matplotlib are.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    try:
        from matplotlib import style
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "report", "drawing figures") from error
    with style.context(["default", _SETTINGS]):
        yield


def make_figure(width: float, height: float) -> Any:
    """Return an empty figure.

    Args:
        width: mm.
        height: mm.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width / MM, height / MM), layout="constrained")


def make_scale(*, is_grey: bool, on_white: bool = False) -> Any:
    """Return the colours of a scale.

    Args:
        is_grey: Whether they are greys.
        on_white: Whether points on white are drawn in them: without the light end then.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    whole = colormaps[_GREY_SCALE if is_grey else _SCALE]
    end = (_LIGHTEST_GREY if is_grey else _LIGHTEST) if on_white else 1.0
    return ListedColormap(whole(np.linspace(0.0, end, 256)))


def name_axes(figure: Any, axes: Any, x: str, y: str) -> None:
    """Write the labels of axes, shortened to what a figure has room for."""
    width, height = (MM * side / _LABEL_CHARACTER for side in figure.get_size_inches())
    axes.set_xlabel(clean(x, int(width)))
    axes.set_ylabel(clean(y, int(0.75 * height)))


def clean(text: str, longest: int = _LONGEST) -> str:
    """Return a text of one line without characters that a file cannot hold, not too long."""
    kept = "".join(letter if letter.isprintable() else " " for letter in text)
    kept = " ".join(kept.split())
    return kept if len(kept) <= longest else f"{kept[: longest - 1]}…"


def count_legend_columns(names: list[str], width: float) -> int:
    """Return how many columns of a legend fit side by side.

    Args:
        names: What it names.
        width: Of the figure, mm.
    """
    widest = max(len(name) for name in names) * CHARACTER + 12.0
    return max(1, min(len(names), math.floor((width - 4.0) / widest)))


def add_legend(
    figure: Any, handles: list[Any], names: list[str], width: float, *, marker_scale: float = 1.0
) -> None:
    """Put a legend below a figure, where it covers nothing.

    Args:
        figure: Matplotlib's.
        handles: What is drawn.
        names: Of each.
        width: Of the figure, mm.
        marker_scale: Of its markers, in units of those drawn.
    """
    shown = [clean(name) for name in names]
    legend = figure.legend(
        handles,
        [str(place) for place in range(len(shown))],
        loc="outside lower center",
        ncols=count_legend_columns(shown, width),
        frameon=False,
        handlelength=3.4 if marker_scale == 1.0 else 1.2,
        markerscale=marker_scale,
        columnspacing=1.2,
        borderpad=0.1,
        labelspacing=0.35,
    )
    # Set afterwards, because a legend leaves out names that begin with an underscore.
    for text, name in zip(legend.get_texts(), shown, strict=True):
        text.set_text(name)
