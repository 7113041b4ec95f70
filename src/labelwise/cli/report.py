"""``labelwise report``: one page that shows what was chosen and why."""

from __future__ import annotations

import webbrowser
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import console, options
from labelwise.cli.app import app
from labelwise.cli.recognising import gather
from labelwise.errors import WriteError
from labelwise.pages.page import write_page
from labelwise.selection.page.options import ReportOptions

_PAGE = "report.html"


class MapMethod(StrEnum):
    """How kernels become a plane."""

    pca = "pca"
    umap = "umap"


# What 'labelwise figures' takes, too.
Target = Annotated[
    Path,
    typer.Argument(
        help="The JSON summary or the batch of a selection, or the folder of a campaign or a "
        "study.",
        show_default=False,
    ),
]
Map = Annotated[
    MapMethod,
    typer.Option("--map", help="How the map of the pool is made; umap needs umap-learn."),
]
ColourBy = Annotated[
    str | None,
    typer.Option("--colour-by", metavar="KEY", help="Colour maps by this column at first."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seeds samples and UMAP.")]


@app.command()
def report(
    target: Target,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where the page goes; by default beside the summary, or report.html in the "
            "folder.",
        ),
    ] = None,
    map_method: Map = MapMethod.pca,
    colour_by: ColourBy = None,
    model: options.Model = None,
    trust_model: options.Trust = False,
    device: options.OnDevice = "auto",
    seed: Seed = 0,
    max_megabytes: Annotated[
        float,
        typer.Option("--max-megabytes", help="How large the page may become, MB."),
    ] = 9.0,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write one self-contained page that shows what was chosen and why.

    It shows a selection, a campaign or a comparison, and needs no network when it is opened.
    """
    asked = ReportOptions(
        map_method=map_method.value,
        colour_by=colour_by,
        max_megabytes=max_megabytes,
        model=model,
        device=device,
        seed=seed,
        trust_model=trust_model,
    )
    page = _name_page(target) if out is None else out
    _check_page(page, target, force=force)
    with console.show_progress(enabled=not quiet) as progress:
        document = gather(target, asked, progress=progress)
    write_page(page, document)
    if not quiet:
        console.output.print(f"page: {page}", markup=False, soft_wrap=True)
    if open_page:
        webbrowser.open(page.resolve().as_uri())


def _name_page(target: Path) -> Path:
    """Return where the page of a target goes unless it is said."""
    return target / _PAGE if target.is_dir() else target.with_suffix(".html")


def _check_page(page: Path, target: Path, *, force: bool) -> None:
    """Refuse to write over an input or over a file that is no page.

    Raises:
        WriteError: The page cannot or must not be written there.
    """
    if page.is_dir():
        raise WriteError(f"cannot write {page}: it is a directory; give --out a file")
    if page.exists() and page.resolve() == target.resolve():
        raise WriteError(f"{page} is the input; choose another --out")
    if page.exists() and page.suffix.lower() not in (".html", ".htm") and not force:
        raise WriteError(
            f"{page} exists and is no page; choose another --out, or replace it with --force"
        )
