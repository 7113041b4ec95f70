"""What ``labelwise figures`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.cli import options
from labelwise.cli.commands.report import (
    ColourBy,
    Map,
    OldDevice,
    OldModel,
    OldTrust,
    Seed,
    Target,
    require_target,
)
from labelwise.pages.figures.settings import COLUMN, FORMATS, PAGE, FigureSettings
from labelwise.runtime.settings import OUTPUT, Setting

_LOOK = "Look"


@dataclass(frozen=True, kw_only=True)
class FiguresCommand:
    """Draw what the page of a selection, a campaign or a comparison shows, fit for a paper.

    Every chart, heat map and map becomes a figure of its own, every table a CSV file, and
    figures.md lists them with their captions. The same results give the same bytes.
    """

    target: Target
    out: Annotated[Path, Setting("Folder of the figures.", flags=("--out", "-o"), panel=OUTPUT)]
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
    grey: Annotated[bool, Setting("Greys in place of colours.", panel=_LOOK)] = False
    titles: Annotated[bool, Setting("Headings above the figures.", panel=_LOOK)] = False
    map_method: Map = "pca"
    colour_by: ColourBy = None
    model: OldModel = None
    trust_model: OldTrust = False
    device: OldDevice = None
    seed: Seed = 0
    quiet: options.Quiet = False

    @property
    def settings(self) -> FigureSettings:
        """How the figures are to come out."""
        return FigureSettings(
            formats=tuple(word.lower() for word in self.formats),
            width=self.width,
            is_grey=self.grey,
            with_titles=self.titles,
        )

    def check(self) -> None:
        """Raise ``LabelwiseError`` for wrong settings, or if there is nothing to show."""
        _ = self.settings
        require_target(self.target)
