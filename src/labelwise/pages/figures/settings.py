"""How figures are to come out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from labelwise.errors import ArgumentError, check_name

FORMATS = ("png", "svg", "pdf")
#: Widths of a column and of a page of journals, mm.
COLUMN, PAGE = 85.0, 175.0
_NARROWEST, _WIDEST = 40.0, 400.0


@dataclass(frozen=True)
class FigureSettings:
    """How figures are to come out.

    Attributes:
        formats: Of ``FORMATS``, each once.
        width: Of a figure, mm, 40 to 400.
        is_grey: Whether they are drawn in greys alone.
        with_titles: Whether the heading stands above the figure; papers have it in the caption.
    """

    formats: tuple[str, ...] = ("png", "svg")
    width: float = COLUMN
    is_grey: bool = False
    with_titles: bool = False

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ArgumentError: An unknown format, one twice or none, or a width out of range.
        """
        for name in self.formats:
            check_name("format", name, FORMATS)
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise ArgumentError(
                f"formats are {', '.join(self.formats) or 'none'}; give one or several of "
                f"{', '.join(FORMATS)}, each once"
            )
        if not (math.isfinite(self.width) and _NARROWEST <= self.width <= _WIDEST):
            raise ArgumentError(
                f"width is {self.width} mm; allowed are {_NARROWEST:g} to {_WIDEST:g}: a column "
                f"has {COLUMN:g}, a page {PAGE:g}"
            )
