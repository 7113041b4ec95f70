"""What ``labelwise finetune`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.finetuning.recipe import Recipe
from labelwise.potentials.spec import ModelSpec
from labelwise.structures.label_keys import LabelKeys


@dataclass(frozen=True, kw_only=True)
class FinetuneCommand:
    """Fine-tune a pretrained model: no frozen weights, the best epoch by validation.

    Errors are in meV (energy), meV/atom and meV/Å.
    """

    train: Annotated[
        list[str],
        typer.Option("--train", metavar="FILE...", help="Labelled structures to fit to."),
    ]
    model: Annotated[ModelSpec, options.MODEL_REQUIRED]
    valid: Annotated[
        list[str] | None,
        typer.Option("--valid", metavar="FILE...", help="They choose the best epoch."),
    ] = None
    test: Annotated[
        list[str] | None,
        typer.Option("--test", metavar="FILE...", help="Measured at the end, not looked at."),
    ] = None
    out: Annotated[
        Path, typer.Option("--out", "-o", help=".model for mace-torch, or .pt, weights only.")
    ] = Path("finetuned.model")
    recipe: Recipe
    exclude_fixed: Annotated[
        bool,
        typer.Option(
            "--exclude-fixed", help="Errors without the forces of fixed atoms (move_mask)."
        ),
    ] = False
    exclude_fixed_from_loss: Annotated[
        bool,
        typer.Option("--exclude-fixed-from-loss", help="The loss without those forces, too."),
    ] = False
    split_key: Annotated[
        str | None,
        typer.Option(
            "--split-key",
            metavar="KEY",
            help="Info key of each test structure's split: errors of each split as well.",
        ),
    ] = None
    isolated_atoms: Annotated[
        str | None,
        typer.Option("--isolated-atoms", metavar="FILE", help="One labelled atom a frame."),
    ] = None
    labels: LabelKeys
    seed: options.Seed = 0
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
