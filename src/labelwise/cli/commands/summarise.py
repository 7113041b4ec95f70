"""What ``labelwise summarise`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.cli import options
from labelwise.features.options import KernelOptions
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import CHOICE, OUTPUT, Setting
from labelwise.selection.options import DEFAULT_REGULARISATION, Regularisation
from labelwise.studies.curation.settings import HERDING


@dataclass(frozen=True, kw_only=True)
class SummariseCommand:
    """Choose the few structures that stand for a data set, and measure how well they do.

    Each is written with the part of the set that is nearest to it, its weight.
    """

    pool: options.Pool
    n_select: options.NSelect
    out: Annotated[Path, Setting("Where they go, as extended XYZ.", flags=("--out", "-o"))] = Path(
        "summary.extxyz"
    )
    model: ModelSpec
    kernel: KernelOptions
    rule: Annotated[
        str,
        Setting(
            "herding (moments of the whole set), lcmd (with weights), k-center (covering "
            "radius), pv or random.",
            panel=CHOICE,
        ),
    ] = HERDING
    regularisation: Regularisation = DEFAULT_REGULARISATION
    strict: options.Strict = False
    n_random: Annotated[
        int,
        Setting(
            "Random subsets of equal size that the figures are held against.",
            ge=0,
            panel=OUTPUT,
        ),
    ] = 5
    group_by: Annotated[
        str | None,
        Setting("Compare the parts of the groups by this info key.", metavar="KEY", panel=OUTPUT),
    ] = None
    summary: Annotated[
        Path | None,
        Setting("Where the JSON summary goes; by default beside the structures.", panel=OUTPUT),
    ] = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
