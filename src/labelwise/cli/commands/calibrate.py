"""What ``labelwise calibrate`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.cli import options
from labelwise.features.options import BatchAtoms, RepresentationOptions
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import OUTPUT, Setting
from labelwise.studies.diagnostics.settings import CalibrationSettings


@dataclass(frozen=True, kw_only=True)
class CalibrateCommand:
    """Hold each kernel's uncertainty against the pretrained model's errors in energy.

    A Gaussian process with each kernel learns what the model leaves unexplained, from labels
    in the order in which posterior variance would buy them. Writes calibration.csv, .md and
    .json, reliability.png and .svg, prefixes.png and .svg, and a JSON file for each finished
    kernel.
    """

    pool: Annotated[
        list[str], Setting("Structures with energies, to learn from.", metavar="FILE...")
    ]
    valid: Annotated[
        list[str], Setting("With energies; they choose how many labels.", metavar="FILE...")
    ]
    test: Annotated[list[str], Setting("With energies; what is reported.", metavar="FILE...")]
    model: Annotated[ModelSpec, options.MODEL_REQUIRED]
    out: Annotated[
        Path,
        Setting("Folder; a calibration that was interrupted goes on there.", flags=("--out", "-o")),
    ]
    train: Annotated[
        list[str] | None,
        Setting(
            "The initial set, with energies, not in the pool; by default drawn from it.",
            metavar="FILE...",
        ),
    ] = None
    settings: CalibrationSettings
    representation: Annotated[RepresentationOptions, options.Take(without=("seed",))]
    batch_atoms: BatchAtoms = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: Annotated[
        bool, Setting("Compute anew what --out has of other settings.", panel=OUTPUT)
    ] = False
