"""What ``labelwise plan`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import MACHINE, Setting
from labelwise.selection.options import SelectionOptions
from labelwise.selection.planning.settings import COST, RUN, RunSettings


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
        Setting(
            "Unlabelled structures, as for 'select'; also without '--pool' before them.",
            metavar="FILE...",
        ),
    ] = None
    train: options.Train = None
    n_select: options.NSelect = 1250
    model: ModelSpec
    selection: Annotated[SelectionOptions, options.Take(without=("regularisation",))]
    n_structures: Annotated[
        int | None,
        Setting(
            "Plan for a pool of N structures like those given; by default as many as they are.",
            aliases=("--structures",),
            ge=1,
            metavar="N",
            panel=RUN,
        ),
    ] = None
    store: Annotated[
        Path,
        Setting(
            "Where the feature store will be.",
            panel=RUN,
        ),
    ] = Path()
    run: RunSettings
    currency: Annotated[str, Setting("Of the price.", panel=COST)] = "USD"
    seconds: Annotated[float, Setting("How long to try.", panel=MACHINE)] = 10.0
    quiet: options.Quiet = False
    as_json: options.AsJson = False
