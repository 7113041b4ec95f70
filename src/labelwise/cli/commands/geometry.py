"""What ``labelwise geometry`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.features.options import RepresentationOptions
from labelwise.potentials.spec import ModelSpec
from labelwise.studies.diagnostics.settings import DEFAULT_MAX_STRUCTURES

DEFAULT_KERNELS = "activation,ntk-e,activation-random,ntk-random,soap,morgan"
_CAMPAIGN = "Campaign"


@dataclass(frozen=True, kw_only=True)
class GeometryCommand:
    """Compare what kernels tell apart: families of structures, and places along a path.

    Writes geometry.md, geometry.csv, families.csv, geometry.json, and heat maps as PNG and SVG.
    """

    pool: Annotated[
        list[str],
        typer.Option("--pool", metavar="FILE...", help="Structures; labels are not needed."),
    ]
    group_by: Annotated[
        str, typer.Option("--group-by", metavar="KEY", help="Info key of the families.")
    ]
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for tables and pictures.")]
    order_by: Annotated[
        str | None,
        typer.Option("--order-by", metavar="KEY", help="Info key of the place along the path."),
    ] = None
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="[NAME=]MODEL",
            help="As for 'labelwise select'; several times for several. The others are compared "
            "with the first.",
            rich_help_panel=options.MODEL,
        ),
    ] = None
    loading: Annotated[ModelSpec, options.Take(without=("path",))]
    campaign: Annotated[
        Path | None,
        typer.Option(
            "--campaign",
            metavar="DIR",
            help="Also take the models of a campaign: before it, unless there is a --model, and "
            "after its --rounds.",
            rich_help_panel=_CAMPAIGN,
        ),
    ] = None
    rounds: Annotated[
        str | None,
        typer.Option(
            "--rounds",
            metavar="N,N...",
            help="Rounds of the campaign; by default 1 and the last.",
            rich_help_panel=_CAMPAIGN,
        ),
    ] = None
    kernels: Annotated[
        str,
        typer.Option(
            "--kernels",
            help="Representations, with commas between.",
            show_default=DEFAULT_KERNELS.replace(",", ", "),
            rich_help_panel=options.CHOICE,
        ),
    ] = DEFAULT_KERNELS
    max_structures: Annotated[
        int,
        typer.Option(
            "--max-structures",
            help="Sample, even over families and along the order.",
            rich_help_panel=options.CHOICE,
        ),
    ] = DEFAULT_MAX_STRUCTURES
    representation: Annotated[
        RepresentationOptions, options.Take(only=("parameters", "sketch_dim", "seed"))
    ]
    batch_atoms: options.BatchAtoms = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
