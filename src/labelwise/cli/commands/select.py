"""What ``labelwise select`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.potentials.spec import ModelSpec
from labelwise.selection.options import SelectionOptions


@dataclass(frozen=True, kw_only=True)
class SelectCommand:
    """Choose the structures of a pool that are most worth labelling.

    Writes them in order of choice as extended XYZ, and a JSON summary beside it.
    """

    pool: options.Pool
    n_select: Annotated[int, typer.Option("-n", "--n-select", min=1, help="Structures to choose.")]
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Where the batch goes, as extended XYZ."),
    ] = Path("batch.extxyz")
    train: options.Train = None
    model: ModelSpec
    selection: SelectionOptions
    force_std: Annotated[
        bool,
        typer.Option(
            "--force-std",
            help="Also write the predicted standard deviation of the force errors of each chosen "
            "structure and its atoms, eV/Å; needs forces in --train.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Fail when a structure would be set aside.",
            rich_help_panel=options.CHOICE,
        ),
    ] = False
    energy_key: Annotated[
        str | None,
        typer.Option("--energy-key", help="Require this energy label in --train."),
    ] = None
    forces_key: Annotated[
        str | None,
        typer.Option("--forces-key", help="Require this forces label in --train."),
    ] = None
    store: options.Store = None
    memory: options.Memory = None
    store_dtype: options.StoreDtype = "float32"
    workers: options.Workers = 0
    ray: options.Ray = None
    ray_workers: options.RayWorkers = None
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary",
            help="Where the JSON summary goes; by default beside the batch.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="KEY",
            help="Count chosen and offered structures by this info key.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    report: Annotated[
        str | None,
        typer.Option(
            "--report",
            metavar="[PATH]",
            help="Also write a page that shows what was chosen and why; without a path beside the "
            "batch.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
