"""What ``labelwise select`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.cli import options
from labelwise.features.options import StoreOptions
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import OUTPUT, Setting
from labelwise.selection.options import SelectionOptions


@dataclass(frozen=True, kw_only=True)
class SelectCommand:
    """Choose the structures of a pool that are most worth labelling.

    Writes them in order of choice as extended XYZ, and a JSON summary beside it.
    """

    pool: options.Pool
    n_select: options.NSelect
    out: Annotated[
        Path, Setting("Where the batch goes, as extended XYZ.", flags=("--out", "-o"))
    ] = Path("batch.extxyz")
    train: options.Train = None
    target: Annotated[
        list[str] | None,
        Setting(
            "Structures that matter, labelled or not: the rule target chooses what tells most "
            "about them.",
            metavar="FILE",
        ),
    ] = None
    model: ModelSpec
    selection: SelectionOptions
    force_std: Annotated[
        bool,
        Setting(
            "Also write the predicted standard deviation of the force errors of each chosen "
            "structure and its atoms, eV/Å; needs forces in --train.",
            panel=OUTPUT,
        ),
    ] = False
    strict: options.Strict = False
    energy_key: Annotated[str | None, Setting("Require this energy label in --train.")] = None
    forces_key: Annotated[str | None, Setting("Require this forces label in --train.")] = None
    storing: StoreOptions
    engine: options.EngineOptions
    summary: Annotated[
        Path | None,
        Setting("Where the JSON summary goes; by default beside the batch.", panel=OUTPUT),
    ] = None
    group_by: Annotated[
        str | None,
        Setting(
            "Count chosen and offered structures by this info key.",
            metavar="KEY",
            panel=OUTPUT,
        ),
    ] = None
    report: Annotated[
        str | None,
        Setting(
            "Also write a page that shows what was chosen and why; without a path beside the "
            "batch.",
            metavar="[PATH]",
            panel=OUTPUT,
        ),
    ] = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
