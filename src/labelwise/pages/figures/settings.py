"""How figures are to come out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from labelwise.errors import ArgumentError, check_name
from labelwise.runtime.settings import Setting

FORMATS = ("png", "svg", "pdf")
#: Widths of a column and of a page of journals, mm.
COLUMN, PAGE = 85.0, 175.0
_NARROWEST, _WIDEST = 40.0, 400.0
_LOOK = "Look"


@dataclass(frozen=True)
class FigureSettings:
    """How figures are to come out.

    Raises:
        ArgumentError: An unknown format, one twice or none, or a width below 40 or above 400 mm.
    """

    formats: Annotated[
        tuple[str, ...],
        Setting(
            f"Of {', '.join(FORMATS)}; several with commas between.",
            flags=("--format",),
            panel=_LOOK,
        ),
    ] = ("png", "svg")
    width: Annotated[
        float,
        Setting(
            f"Width: {COLUMN:g} for a column of a journal, {PAGE:g} for both.",
            metavar="MM",
            panel=_LOOK,
        ),
    ] = COLUMN
    is_grey: Annotated[
        bool, Setting("Greys in place of colours.", flags=("--grey",), panel=_LOOK)
    ] = False
    with_titles: Annotated[
        bool, Setting("Headings above the figures.", flags=("--titles",), panel=_LOOK)
    ] = False

    def __post_init__(self) -> None:
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
