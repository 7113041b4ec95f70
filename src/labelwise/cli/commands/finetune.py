"""What ``labelwise finetune`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from labelwise.cli import options
from labelwise.finetuning.recipe import FixedForces, PretrainingLabels, Recipe
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import Seed, Setting
from labelwise.structures.label_keys import DEFAULT_STRESS_KEY, LabelKeys, StressKey


@dataclass(frozen=True, kw_only=True)
class FinetuneCommand:
    """Fine-tune a pretrained model: all weights or some, the best epoch by validation.

    Errors are in meV (energy), meV/atom, meV/Å and, where there are stress labels, meV/Å³.
    """

    train: Annotated[list[str], Setting("Labelled structures to fit to.", metavar="FILE...")]
    model: Annotated[ModelSpec, options.MODEL_REQUIRED]
    valid: Annotated[
        list[str] | None, Setting("They choose the best epoch.", metavar="FILE...")
    ] = None
    test: Annotated[
        list[str] | None, Setting("Measured at the end, not looked at.", metavar="FILE...")
    ] = None
    replay: Annotated[
        list[str] | None,
        Setting(
            "Structures like those of the pretraining, mixed in so that they are not forgotten.",
            metavar="FILE...",
        ),
    ] = None
    retain: Annotated[
        list[str] | None,
        Setting("Others like those: what is forgotten is measured on them.", metavar="FILE..."),
    ] = None
    replay_labels: Annotated[
        str,
        Setting(
            "Labels of --replay and --retain: file takes those that they have, of the level of "
            "theory of the pretraining; model lets the pretrained model label them.",
            choices=get_args(PretrainingLabels),
        ),
    ] = "file"
    out: Annotated[
        Path,
        Setting(
            "The fitted model: .model for mace-torch, .pth for sevenn, or .pt, weights only.",
            flags=("--out", "-o"),
        ),
    ] = Path("finetuned.model")
    recipe: Recipe
    fixed_forces: Annotated[
        str,
        Setting(
            "exclude leaves the forces of fixed atoms (move_mask) out of errors, count does not.",
            choices=get_args(FixedForces),
        ),
    ] = "count"
    split_key: Annotated[
        str | None,
        Setting(
            "Info key of each test structure's split: errors of each split as well.", metavar="KEY"
        ),
    ] = None
    isolated_atoms: Annotated[str | None, Setting("One labelled atom a frame.", metavar="FILE")] = (
        None
    )
    labels: LabelKeys
    stress_key: StressKey = DEFAULT_STRESS_KEY
    partial_labels: Annotated[
        bool, Setting("Take structures that have energies alone or forces alone, too.")
    ] = False
    seed: Seed = 0
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
