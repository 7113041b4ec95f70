"""What ``labelwise summarise`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.features.options import KernelOptions
from labelwise.potentials.spec import ModelSpec
from labelwise.selection.options import DEFAULT_REGULARISATION
from labelwise.studies.curation.settings import HERDING


@dataclass(frozen=True, kw_only=True)
class SummariseCommand:
    """Choose the few structures that stand for a data set, and measure how well they do.

    Each is written with the part of the set that is nearest to it, its weight.
    """

    pool: options.Pool
    n_select: Annotated[int, typer.Option("-n", "--n-select", min=1, help="Structures to keep.")]
    out: Annotated[Path, typer.Option("--out", "-o", help="Where they go, as extended XYZ.")] = (
        Path("summary.extxyz")
    )
    model: ModelSpec
    kernel: KernelOptions
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            help="herding (moments of the whole set), lcmd (with weights), k-center (covering "
            "radius), pv or random.",
            rich_help_panel=options.CHOICE,
        ),
    ] = HERDING
    regularisation: Annotated[
        float,
        typer.Option("--regularisation", help="λ of pv.", rich_help_panel=options.CHOICE),
    ] = DEFAULT_REGULARISATION
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Fail when a structure would be set aside.",
            rich_help_panel=options.CHOICE,
        ),
    ] = False
    n_random: Annotated[
        int,
        typer.Option(
            "--n-random",
            min=0,
            help="Random subsets of equal size that the figures are held against.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = 5
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="KEY",
            help="Compare the parts of the groups by this info key.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary",
            help="Where the JSON summary goes; by default beside the structures.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
