"""What ``labelwise select`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options


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
    model: options.Model = None
    head: options.Head = None
    trust_model: options.Trust = False
    representation: options.Representation = "ntk-e"
    parameters: options.ParameterBlock = options.Parameters.embedding
    sketch_dim: options.SketchDim = None
    reduction: options.Reduction = "fields"
    probes: options.Probes = options.DEFAULT_PROBES
    energy_weight: options.EnergyWeight = 0.5
    normalise: options.Normalise = None
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            help="pv, lcmd, k-center, top, joint-pv or random.",
            rich_help_panel=options.CHOICE,
        ),
    ] = "lcmd"
    shortlist: Annotated[
        int | None,
        typer.Option(
            "--shortlist",
            min=1,
            metavar="K",
            help="First keep the K structures of highest posterior variance.",
            rich_help_panel=options.CHOICE,
        ),
    ] = None
    regularisation: Annotated[
        float | None,
        typer.Option(
            "--regularisation",
            help="λ of the posterior variance; by default 0.3 for joint-pv, else 1e-3.",
            rich_help_panel=options.CHOICE,
        ),
    ] = None
    force_std: Annotated[
        bool,
        typer.Option(
            "--force-std",
            help="Also write the predicted standard deviation of the force errors of each chosen "
            "structure and its atoms, eV/Å; needs forces in --train.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False
    seed: options.Seed = 0
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
    device: options.OnDevice = "auto"
    dtype: options.InPrecision = None
    batch_atoms: options.BatchAtoms = None
    max_atoms: options.MaxAtoms = None
    store: options.Store = None
    memory: options.Memory = None
    store_dtype: options.StoreDtype = options.StorageType.float32
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
