"""What ``labelwise study`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.cli import options
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import Setting
from labelwise.studies.weights.settings import BATCHES, WeightStudySettings


@dataclass(frozen=True, kw_only=True)
class StudyWeightCommand:
    """Compare energy/force weights and blocks of parameters on labelled structures.

    A few structures count as labelled, the others are scored, and the scores are held
    against the model's true errors. Writes weights.csv, weights.md, weights.png and a JSON
    file for each finished block.
    """

    pool: Annotated[list[str], Setting("Structures with energies and forces.", metavar="FILE...")]
    model: Annotated[ModelSpec, options.MODEL_REQUIRED]
    out: Annotated[
        Path, Setting("Folder; a study that was interrupted goes on there.", flags=("--out", "-o"))
    ]
    train: Annotated[
        list[str] | None,
        Setting(
            "Labelled structures, not in the pool; by default drawn from it.", metavar="FILE..."
        ),
    ] = None
    settings: WeightStudySettings
    test: Annotated[
        list[str] | None,
        Setting("What fine-tunings are measured on.", metavar="FILE...", panel=BATCHES),
    ] = None
    valid: Annotated[
        list[str] | None,
        Setting("What chooses their best epoch.", metavar="FILE...", panel=BATCHES),
    ] = None
    batch_atoms: options.BatchAtoms = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: Annotated[
        bool, Setting("Compute anew what --out has of other settings.", panel=options.OUTPUT)
    ] = False
