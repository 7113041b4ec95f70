"""What ``labelwise finetune`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options


@dataclass(frozen=True, kw_only=True)
class FinetuneCommand:
    """Fine-tune a pretrained model: no frozen weights, the best epoch by validation.

    Errors are in meV (energy), meV/atom and meV/Å.
    """

    train: Annotated[
        list[str],
        typer.Option("--train", metavar="FILE...", help="Labelled structures to fit to."),
    ]
    model: Annotated[
        str,
        typer.Option("--model", metavar="MODEL", help="As for 'labelwise select'."),
    ]
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
    schedule: Annotated[str, typer.Option("--schedule", help="reaction-paths or fixed.")] = (
        "reaction-paths"
    )
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", min=1, help="Passes over --train; by default the schedule's number."
        ),
    ] = None
    max_updates: Annotated[
        int | None,
        typer.Option("--max-updates", min=1, help="Stop after so many, whatever the epochs."),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Structures an update; by default the schedule's number."
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        typer.Option("--lr", help="Learning rate at the start; by default the schedule's."),
    ] = None
    start: Annotated[str, typer.Option("--start", help="pretrained or scratch.")] = "pretrained"
    reference_energies: Annotated[
        str,
        typer.Option("--reference-energies", help="auto, refit, labelled, isolated or checkpoint."),
    ] = "auto"
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile updates for this machine, once; needs the CPU and a C++ compiler.",
        ),
    ] = False
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
    energy_key: options.EnergyKey = "REF_energy"
    forces_key: options.ForcesKey = "REF_forces"
    head: options.Head = None
    trust_model: options.Trust = False
    seed: options.Seed = 0
    device: options.OnDevice = "auto"
    dtype: options.InPrecision = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
