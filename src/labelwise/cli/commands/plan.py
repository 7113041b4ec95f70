"""What ``labelwise plan`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.potentials.spec import ModelSpec
from labelwise.selection.options import SelectionOptions

_RUN, _COST = "The run", "Cost and limits"


@dataclass(frozen=True, kw_only=True)
class PlanCommand:
    """Say what 'select' will need: time, memory, disk, cost, and the largest pool that fits.

    Tries the model on a sample of the pool for about ten seconds. The time of the choice itself
    is not in it.
    """

    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="POOL", hidden=True, help="Unlabelled structures, as --pool."),
    ] = None
    pool: Annotated[
        list[str] | None,
        typer.Option(
            "--pool",
            metavar="FILE...",
            help="Unlabelled structures, as for 'select'; also without '--pool' before them.",
        ),
    ] = None
    train: options.Train = None
    n_select: Annotated[
        int, typer.Option("-n", "--n-select", min=1, help="Structures to choose.")
    ] = 1250
    model: ModelSpec
    selection: Annotated[SelectionOptions, options.Take(without=("regularisation",))]
    structures: Annotated[
        int | None,
        typer.Option(
            "--structures",
            min=1,
            metavar="N",
            help="Plan for a pool of N structures like those given; by default as many as they "
            "are.",
            rich_help_panel=_RUN,
        ),
    ] = None
    store: Annotated[
        Path,
        typer.Option(
            "--store",
            help="Where the feature store will be.",
            rich_help_panel=_RUN,
        ),
    ] = Path()
    store_dtype: options.StoreDtype = "float32"
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Bound on the memory of the process, as 4GB; by default half of what it may use.",
            rich_help_panel=_RUN,
        ),
    ] = None
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            min=1,
            metavar="N",
            help="Represent on N GPUs like the one here, or like that of --structures-per-second.",
            rich_help_panel=_RUN,
        ),
    ] = None
    structures_per_second: Annotated[
        float | None,
        typer.Option(
            "--structures-per-second",
            metavar="R",
            help="Structures that one machine or GPU represents in a second, as 'plan --json' "
            "measured it there.",
            rich_help_panel=_RUN,
        ),
    ] = None
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            "--price-per-hour",
            metavar="X",
            help="Of the machine, or of one of the GPUs.",
            rich_help_panel=_COST,
        ),
    ] = None
    currency: Annotated[
        str, typer.Option("--currency", help="Of the price.", rich_help_panel=_COST)
    ] = "USD"
    hours: Annotated[
        float | None,
        typer.Option(
            "--hours",
            help="Also say how large a pool can be done in so many hours.",
            rich_help_panel=_COST,
        ),
    ] = None
    seconds: Annotated[
        float,
        typer.Option("--seconds", help="How long to try.", rich_help_panel=options.MACHINE),
    ] = 10.0
    quiet: options.Quiet = False
    as_json: options.AsJson = False
