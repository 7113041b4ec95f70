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
        Setting(
            "Unlabelled structures, as for 'select'; also without '--pool' before them.",
            metavar="FILE...",
        ),
    ] = None
    train: options.Train = None
    n_select: options.NSelect = 1250
    model: ModelSpec
    selection: Annotated[SelectionOptions, options.Take(without=("regularisation",))]
    structures: Annotated[
        int | None,
        Setting(
            "Plan for a pool of N structures like those given; by default as many as they are.",
            ge=1,
            metavar="N",
            panel=_RUN,
        ),
    ] = None
    store: Annotated[
        Path,
        Setting(
            "Where the feature store will be.",
            panel=_RUN,
        ),
    ] = Path()
    store_dtype: options.StoreDtype = "float32"
    memory: Annotated[
        str | None,
        Setting(
            "Bound on the memory of the process, as 4GB; by default half of what it may use.",
            metavar="SIZE",
            panel=_RUN,
        ),
    ] = None
    gpus: Annotated[
        int | None,
        Setting(
            "Represent on N GPUs like the one here, or like that of --structures-per-second.",
            ge=1,
            metavar="N",
            panel=_RUN,
        ),
    ] = None
    structures_per_second: Annotated[
        float | None,
        Setting(
            "Structures that one machine or GPU represents in a second, as 'plan --json' "
            "measured it there.",
            metavar="R",
            panel=_RUN,
        ),
    ] = None
    price_per_hour: Annotated[
        float | None, Setting("Of the machine, or of one of the GPUs.", metavar="X", panel=_COST)
    ] = None
    currency: Annotated[str, Setting("Of the price.", panel=_COST)] = "USD"
    hours: Annotated[
        float | None,
        Setting("Also say how large a pool can be done in so many hours.", panel=_COST),
    ] = None
    seconds: Annotated[float, Setting("How long to try.", panel=MACHINE)] = 10.0
    quiet: options.Quiet = False
    as_json: options.AsJson = False
