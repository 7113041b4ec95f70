"""What ``labelwise study`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.potentials.spec import PARAMETER_BLOCKS
from labelwise.selection.options import DEFAULT_JOINT_REGULARISATION
from labelwise.structures.label_keys import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY
from labelwise.studies.weights.settings import DEFAULT_WEIGHTS

_BATCHES = "Batches"


@dataclass(frozen=True, kw_only=True)
class StudyWeightCommand:
    """Compare energy/force weights and blocks of parameters on labelled structures.

    A few structures count as labelled, the others are scored, and the scores are held
    against the model's true errors. Writes weights.csv, weights.md, weights.png and a JSON
    file for each finished block.
    """

    pool: Annotated[
        list[str],
        typer.Option("--pool", metavar="FILE...", help="Structures with energies and forces."),
    ]
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="As for 'labelwise select'.")
    ]
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder; a study that was interrupted goes on there."),
    ]
    train: Annotated[
        list[str] | None,
        typer.Option(
            "--train",
            metavar="FILE...",
            help="Labelled structures, not in the pool; by default drawn from it.",
        ),
    ] = None
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            help="Weights of the energy: 0 forces only, 1 energy only.",
            rich_help_panel=options.CHOICE,
        ),
    ] = ",".join(f"{weight:g}" for weight in DEFAULT_WEIGHTS)
    parameters: Annotated[
        str,
        typer.Option(
            "--parameters",
            help="Blocks of parameters to compare.",
            rich_help_panel=options.CHOICE,
        ),
    ] = ",".join(PARAMETER_BLOCKS)
    reduction: Annotated[
        str,
        typer.Option(
            "--reduction",
            help="Of the force rows of ntk-ef: rms, element-rms, force-norm, fields, moments.",
            rich_help_panel=options.CHOICE,
        ),
    ] = "fields"
    probes: options.Probes = options.DEFAULT_PROBES
    sketch_dim: options.SketchDim = None
    regularisation: Annotated[
        float,
        typer.Option(
            "--regularisation",
            help="λ of the joint posterior.",
            rich_help_panel=options.CHOICE,
        ),
    ] = DEFAULT_JOINT_REGULARISATION
    n_train: Annotated[
        int,
        typer.Option("--n-train", min=1, help="Labelled structures drawn from the pool."),
    ] = 15
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Random labelled sets.")] = 5
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything that is drawn.")] = 0
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            min=0,
            metavar="B",
            help="Also fine-tune on the labelled structures and a batch of B.",
            rich_help_panel=_BATCHES,
        ),
    ] = 0
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test",
            metavar="FILE...",
            help="What fine-tunings are measured on.",
            rich_help_panel=_BATCHES,
        ),
    ] = None
    valid: Annotated[
        list[str] | None,
        typer.Option(
            "--valid",
            metavar="FILE...",
            help="What chooses their best epoch.",
            rich_help_panel=_BATCHES,
        ),
    ] = None
    max_updates: Annotated[
        int | None,
        typer.Option("--max-updates", min=1, help="Of a fine-tuning.", rich_help_panel=_BATCHES),
    ] = None
    energy_key: options.EnergyKey = DEFAULT_ENERGY_KEY
    forces_key: options.ForcesKey = DEFAULT_FORCES_KEY
    head: options.Head = None
    trust_model: options.Trust = False
    device: options.OnDevice = "auto"
    dtype: options.InPrecision = None
    batch_atoms: options.BatchAtoms = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Compute anew what --out has of other settings.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False
