"""What ``labelwise figures`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.cli.commands.report import ColourBy, Map, Seed, Target, require_target
from labelwise.pages.figures.settings import COLUMN, FORMATS, PAGE, FigureSettings
from labelwise.potentials.spec import ModelSpec

_LOOK = "Look"


@dataclass(frozen=True, kw_only=True)
class FiguresCommand:
    """Draw what the page of a selection, a campaign or a comparison shows, fit for a paper.

    Every chart, heat map and map becomes a figure of its own, every table a CSV file, and
    figures.md lists them with their captions. The same results give the same bytes.
    """

    target: Target
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the figures.", rich_help_panel=options.OUTPUT),
    ]
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help=f"Of {', '.join(FORMATS)}; several with commas between.",
            rich_help_panel=_LOOK,
        ),
    ] = "png,svg"
    width: Annotated[
        float,
        typer.Option(
            "--width",
            metavar="MM",
            help=f"Width: {COLUMN:g} for a column of a journal, {PAGE:g} for both.",
            rich_help_panel=_LOOK,
        ),
    ] = COLUMN
    grey: Annotated[
        bool, typer.Option("--grey", help="Greys in place of colours.", rich_help_panel=_LOOK)
    ] = False
    titles: Annotated[
        bool,
        typer.Option("--titles", help="Headings above the figures.", rich_help_panel=_LOOK),
    ] = False
    map_method: Map = "pca"
    colour_by: ColourBy = None
    model: Annotated[ModelSpec, options.Take(only=("path", "device", "trust"))]
    seed: Seed = 0
    quiet: options.Quiet = False

    @property
    def settings(self) -> FigureSettings:
        """How the figures are to come out."""
        return FigureSettings(
            formats=tuple(word.strip().lower() for word in self.formats.split(",") if word.strip()),
            width=self.width,
            is_grey=self.grey,
            with_titles=self.titles,
        )

    def check(self) -> None:
        """Raise ``LabelwiseError`` for wrong settings, or if there is nothing to show."""
        _ = self.settings
        require_target(self.target)
