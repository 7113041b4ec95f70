"""``labelwise figures``: what a page shows, as figures for print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import console, options
from labelwise.cli.app import app
from labelwise.cli.recognising import gather
from labelwise.cli.report import ColourBy, Map, MapMethod, Seed, Target
from labelwise.pages.figures import FORMATS, FigureSettings, write_figures
from labelwise.pages.figures.settings import COLUMN, PAGE
from labelwise.selection.page.options import ReportOptions

_LOOK = "Look"


@app.command()
def figures(
    target: Target,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the figures.", rich_help_panel=options.OUTPUT),
    ],
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help=f"Of {', '.join(FORMATS)}; several with commas between.",
            rich_help_panel=_LOOK,
        ),
    ] = "png,svg",
    width: Annotated[
        float,
        typer.Option(
            "--width",
            metavar="MM",
            help=f"Width: {COLUMN:g} for a column of a journal, {PAGE:g} for both.",
            rich_help_panel=_LOOK,
        ),
    ] = COLUMN,
    grey: Annotated[
        bool, typer.Option("--grey", help="Greys in place of colours.", rich_help_panel=_LOOK)
    ] = False,
    titles: Annotated[
        bool,
        typer.Option("--titles", help="Headings above the figures.", rich_help_panel=_LOOK),
    ] = False,
    map_method: Map = MapMethod.pca,
    colour_by: ColourBy = None,
    model: options.Model = None,
    trust_model: options.Trust = False,
    device: options.OnDevice = "auto",
    seed: Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Draw what the page of a selection, a campaign or a comparison shows, fit for a paper.

    Every chart, heat map and map becomes a figure of its own, every table a CSV file, and
    figures.md lists them with their captions. The same results give the same bytes.
    """
    settings = FigureSettings(
        formats=tuple(word.strip().lower() for word in formats.split(",") if word.strip()),
        width=width,
        is_grey=grey,
        with_titles=titles,
    )
    asked = ReportOptions(
        map_method=map_method.value,
        colour_by=colour_by,
        model=model,
        device=device,
        seed=seed,
        trust_model=trust_model,
    )
    with console.show_progress(enabled=not quiet) as progress:
        document = gather(target, asked, progress=progress)
    with console.show_status("drawing", enabled=not quiet):
        files = write_figures(document, out, settings)
    if not quiet:
        n_figures = sum(path.suffix.lstrip(".") == settings.formats[0] for path in files)
        n_tables = sum(path.suffix == ".csv" for path in files)
        words = f"figures: {n_figures}, tables: {n_tables}, listed in {files[0]}"
        console.output.print(words, markup=False, soft_wrap=True)
