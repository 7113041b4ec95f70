"""``labelwise finetune``: fit a pretrained model to labelled structures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from labelwise.cli import console, options
from labelwise.cli.app import app
from labelwise.errors import ArgumentError, WriteError
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.loop import EpochRecord
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.finetuning.training import FineTuned, finetune
from labelwise.potentials import Potential, load_potential
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.record import describe_potential
from labelwise.structures import Frame, iter_frames
from labelwise.structures.annotations import get_head, require_one_head
from labelwise.structures.isolated_atoms import read_isolated_energies
from labelwise.structures.labels import choose_keys
from labelwise.structures.split_names import get_split


@app.command(name="finetune")
def finetune_command(
    train: Annotated[
        list[str],
        typer.Option("--train", metavar="FILE...", help="Labelled structures to fit to."),
    ],
    model: Annotated[
        str,
        typer.Option("--model", metavar="MODEL", help="As for 'labelwise select'."),
    ],
    valid: Annotated[
        list[str] | None,
        typer.Option("--valid", metavar="FILE...", help="They choose the best epoch."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option("--test", metavar="FILE...", help="Measured at the end, not looked at."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help=".model for mace-torch, or .pt, weights only.")
    ] = Path("finetuned.model"),
    schedule: Annotated[
        str, typer.Option("--schedule", help="reaction-paths or fixed.")
    ] = "reaction-paths",
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", min=1, help="Passes over --train; by default the schedule's number."
        ),
    ] = None,
    max_updates: Annotated[
        int | None,
        typer.Option("--max-updates", min=1, help="Stop after so many, whatever the epochs."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Structures an update; by default the schedule's number."
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--lr", help="Learning rate at the start; by default the schedule's."),
    ] = None,
    start: Annotated[str, typer.Option("--start", help="pretrained or scratch.")] = "pretrained",
    reference_energies: Annotated[
        str,
        typer.Option("--reference-energies", help="auto, refit, labelled, isolated or checkpoint."),
    ] = "auto",
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile updates for this machine, once; needs the CPU and a C++ compiler.",
        ),
    ] = False,
    exclude_fixed: Annotated[
        bool,
        typer.Option(
            "--exclude-fixed", help="Errors without the forces of fixed atoms (move_mask)."
        ),
    ] = False,
    exclude_fixed_from_loss: Annotated[
        bool,
        typer.Option("--exclude-fixed-from-loss", help="The loss without those forces, too."),
    ] = False,
    split_key: Annotated[
        str | None,
        typer.Option(
            "--split-key",
            metavar="KEY",
            help="Info key of each test structure's split: errors of each split as well.",
        ),
    ] = None,
    isolated_atoms: Annotated[
        str | None,
        typer.Option("--isolated-atoms", metavar="FILE", help="One labelled atom a frame."),
    ] = None,
    energy_key: options.EnergyKey = "REF_energy",
    forces_key: options.ForcesKey = "REF_forces",
    head: options.Head = None,
    trust_model: options.Trust = False,
    seed: options.Seed = 0,
    device: options.OnDevice = "auto",
    dtype: options.InPrecision = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    force: options.Force = False,
) -> None:
    """Fine-tune a pretrained model: no frozen weights, the best epoch by validation.

    Errors are in meV (energy), meV/atom and meV/Å.
    """
    if out.exists() and not force:
        raise WriteError(f"{out} exists; choose another --out, or replace it with --force")
    if out.suffix not in {".model", ".pt"}:
        raise ArgumentError(f"--out must end in .model or .pt, got {out}")
    recipe = Recipe(
        schedule=schedule,
        epochs=epochs,
        max_updates=max_updates,
        batch_size=batch_size,
        learning_rate=learning_rate,
        start=start,
        reference_energies=reference_energies,
        compiled=compiled,
        loss_fixed_forces="exclude" if exclude_fixed_from_loss else "count",
    )
    fixed_forces = "exclude" if exclude_fixed else "count"
    tested = list(iter_frames(test)) if test else []
    splits = None if split_key is None else _splits(tested, split_key)
    frames, held_out = list(iter_frames(train)), list(iter_frames(valid)) if valid else []
    energy_key, forces_key = _choose_keys(frames, energy_key, forces_key)
    require_one_head([get_head(each.atoms) for each in (*frames, *held_out, *tested)], "labelled")
    potential = load_potential(
        model,
        device=device,
        dtype=None if dtype is None else dtype.value,
        head=head,
        trust=trust_model,
    )
    plan = resolve_schedule(recipe, len(frames))
    with console.show_progress(enabled=not (quiet or as_json)) as progress:
        fitted = finetune(
            potential,
            [frame.atoms for frame in frames],
            [frame.atoms for frame in held_out],
            recipe,
            seed=seed,
            isolated_atoms=_isolated(isolated_atoms, energy_key),
            train_sources=_sources(frames),
            valid_sources=_sources(held_out),
            fixed_forces=fixed_forces,
            progress=lambda record: progress("fine-tune", record.updates, plan.n_updates),
            energy_key=energy_key,
            forces_key=forces_key,
        )
    save_potential(fitted.potential, out)
    record = _describe(fitted, potential, recipe, fixed_forces, out)
    if tested:
        measured = evaluate(
            fitted.potential,
            [frame.atoms for frame in tested],
            energy_key=energy_key,
            forces_key=forces_key,
            fixed_forces=fixed_forces,
            splits=splits,
            sources=_sources(tested),
        )
        record["test"] = asdict(measured.errors)
        record["messages"] += [f"test: {message}" for message in measured.messages]
        n_isolated = len(tested) - measured.errors.n_structures
        if n_isolated:
            text = f"{n_isolated} isolated atoms of the test set are in no error."
            record["messages"].append(text)
        if splits is not None:
            tables = measured.split_errors.items()
            record["split_errors"] = {name: asdict(errors) for name, errors in tables}
    write_text(out.with_suffix(".json"), to_json(record))
    if as_json:
        typer.echo(to_json(record), nl=False)
    elif not quiet:
        _show(fitted, record, out)


def _choose_keys(frames: list[Frame], energy_key: str, forces_key: str) -> tuple[str, str]:
    """Return the keys of labels, ASE's own where the default ones are nowhere; say so."""
    given = (energy_key, forces_key)
    chosen = choose_keys((frame.atoms for frame in frames), *given)
    if chosen is None or chosen == given:
        return given
    console.warn(
        f"no training structure has {energy_key} or {forces_key}: labels are taken from "
        f"{chosen[0]} and {chosen[1]}"
    )
    return chosen


def _sources(frames: list[Frame]) -> list[object]:
    return [frame.source for frame in frames]


def _splits(frames: list[Frame], key: str) -> list[str]:
    return [get_split(frame.atoms, str(frame.source), key) for frame in frames]


def _isolated(path: str | None, energy_key: str) -> dict[int, float] | None:
    """Return the energies of single atoms, eV by atomic number."""
    if path is None:
        return None
    return read_isolated_energies(iter_frames(path), energy_key=energy_key)


def _describe(
    fitted: FineTuned, potential: Potential, recipe: Recipe, fixed_forces: str, out: Path
) -> dict[str, Any]:
    return {
        "format_version": 1,
        "out": str(out),
        "recipe": asdict(recipe),
        "fixed_forces": fixed_forces,
        "start": describe_potential(potential),
        "model": describe_potential(fitted.potential),
        "versions": package_versions(),
        "best_epoch": fitted.best_epoch,
        "updates": fitted.n_updates,
        "seconds": round(fitted.seconds, 2),
        "reference_energies_ev": fitted.reference_energies,
        "messages": [*fitted.notes, *fitted.messages],
        "history": [_plain(item) for item in fitted.history],
    }


def _plain(record: EpochRecord) -> dict[str, Any]:
    return asdict(record)


def _show(fitted: FineTuned, record: dict[str, Any], out: Path) -> None:
    for message in record["messages"]:
        console.say(message)
    best = next(item for item in fitted.history if item.epoch == fitted.best_epoch)
    lines = [f"{fitted.n_updates} updates in {fitted.seconds:.1f} s, best epoch {best.epoch}"]
    errors = {"valid": None if best.valid is None else asdict(best.valid)}
    errors["test"] = record.get("test")
    errors |= {f"test, {name}": each for name, each in record.get("split_errors", {}).items()}
    for name, table in errors.items():
        if table is not None:
            shown = ", ".join(f"{key} {value:.1f}" for key, value in table.items())
            lines.append(f"{name}: {shown}")
    lines.append(f"model:   {out}")
    for line in lines:
        console.output.print(line, markup=False, soft_wrap=True)
