"""What ``labelwise study`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.potentials.spec import ModelSpec
from labelwise.studies.weights.settings import BATCHES, WeightStudySettings


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
    model: Annotated[ModelSpec, options.MODEL_REQUIRED]
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
    settings: WeightStudySettings
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test",
            metavar="FILE...",
            help="What fine-tunings are measured on.",
            rich_help_panel=BATCHES,
        ),
    ] = None
    valid: Annotated[
        list[str] | None,
        typer.Option(
            "--valid",
            metavar="FILE...",
            help="What chooses their best epoch.",
            rich_help_panel=BATCHES,
        ),
    ] = None
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
