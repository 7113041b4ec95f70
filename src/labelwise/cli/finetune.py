"""``labelwise finetune``: fit a pretrained model to labelled structures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from labelwise.cli import console
from labelwise.cli.commands.finetune import FinetuneCommand
from labelwise.errors import WriteError
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.export import require_file_name, save_potential
from labelwise.finetuning.heads import on_replay_head
from labelwise.finetuning.loop import EpochRecord
from labelwise.finetuning.metrics import MEV_TO_GPA
from labelwise.finetuning.pretraining_set import PretrainingSet, prepare_pretraining_set
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import FineTuned, finetune
from labelwise.potentials import Potential
from labelwise.potentials.loading import require_model
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.record import describe_potential
from labelwise.structures import Frame, iter_frames
from labelwise.structures.annotations import get_head, require_one_head
from labelwise.structures.isolated_atoms import read_isolated_energies
from labelwise.structures.labels import choose_keys
from labelwise.structures.split_names import get_split


def run_finetune(args: FinetuneCommand) -> None:
    """Run ``labelwise finetune``."""
    if args.out.exists() and not args.force:
        raise WriteError(f"{args.out} exists; choose another --out, or replace it with --force")
    recipe, fixed_forces = args.recipe, args.fixed_forces
    tested = list(iter_frames(args.test)) if args.test else []
    splits = None if args.split_key is None else _splits(tested, args.split_key)
    frames = list(iter_frames(args.train))
    held_out = list(iter_frames(args.valid)) if args.valid else []
    energy_key, forces_key = _choose_keys(frames, args.labels.energy_key, args.labels.forces_key)
    require_one_head([get_head(each.atoms) for each in (*frames, *held_out, *tested)], "labelled")
    potential = require_trainable(require_model(args.model))
    require_file_name(potential, args.out)
    keys: Any = {
        "energy_key": energy_key,
        "forces_key": forces_key,
        "stress_key": args.stress_key,
    }
    known = {
        role: _pretraining_set(
            on_replay_head(potential, recipe), files, args.replay_labels, role, keys
        )
        for role, files in (("replayed", args.replay), ("retained", args.retain))
    }
    if known["retained"] is not None:
        known["retained"].require_unseen([frame.atoms for frame in frames], known["replayed"])
    plan = resolve_schedule(recipe, len(frames))
    with console.show_progress(enabled=not (args.quiet or args.as_json)) as progress:
        fitted = finetune(
            potential,
            [frame.atoms for frame in frames],
            [frame.atoms for frame in held_out],
            recipe,
            seed=args.seed,
            isolated_atoms=_isolated(args.isolated_atoms, energy_key),
            train_sources=_sources(frames),
            valid_sources=_sources(held_out),
            fixed_forces=fixed_forces,
            replay=known["replayed"],
            retain=known["retained"],
            progress=lambda record: progress("fine-tune", record.updates, plan.n_updates),
            partial_labels=args.partial_labels,
            **keys,
        )
    save_potential(fitted.potential, args.out)
    record = _describe(fitted, potential, recipe, fixed_forces, args.out)
    if tested:
        measured = evaluate(
            fitted.potential,
            [frame.atoms for frame in tested],
            **keys,
            partial_labels=args.partial_labels,
            fixed_forces=fixed_forces,
            splits=splits,
            sources=_sources(tested),
        )
        record["test"] = measured.errors.as_record()
        record["messages"] += [f"test: {message}" for message in measured.messages]
        n_isolated = len(tested) - measured.errors.n_structures
        if n_isolated:
            text = f"{n_isolated} isolated atoms of the test set are in no error."
            record["messages"].append(text)
        if splits is not None:
            tables = measured.split_errors.items()
            record["split_errors"] = {name: errors.as_record() for name, errors in tables}
    write_text(args.out.with_suffix(".json"), to_json(record))
    if args.as_json:
        typer.echo(to_json(record), nl=False)
    elif not args.quiet:
        _show(fitted, record, args.out)


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


def _pretraining_set(
    potential: Potential, files: list[str] | None, labels: str, role: str, keys: Any
) -> PretrainingSet | None:
    if not files:
        return None
    frames = list(iter_frames(files))
    return prepare_pretraining_set(
        potential,
        [frame.atoms for frame in frames],
        labels=labels,
        role=role,
        sources=_sources(frames),
        **keys,
    )


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
        "trained": asdict(fitted.trained),
        "seconds": round(fitted.seconds, 2),
        "reference_energies_ev": fitted.reference_energies,
        "retained": None if fitted.retained is None else fitted.retained.as_record(),
        "messages": [*fitted.notes, *fitted.messages],
        "history": [_plain(item) for item in fitted.history],
    }


def _plain(record: EpochRecord) -> dict[str, Any]:
    return asdict(record) | {"valid": None if record.valid is None else record.valid.as_record()}


def _show(fitted: FineTuned, record: dict[str, Any], out: Path) -> None:
    for message in record["messages"]:
        console.say(message)
    best = next(item for item in fitted.history if item.epoch == fitted.best_epoch)
    lines = [f"{fitted.n_updates} updates in {fitted.seconds:.1f} s, best epoch {best.epoch}"]
    errors = {"valid": None if best.valid is None else best.valid.as_record()}
    errors["test"] = record.get("test")
    for when, table in (record["retained"] or {}).items():
        errors[f"retained, {when}"] = table
    errors |= {f"test, {name}": each for name, each in record.get("split_errors", {}).items()}
    for name, table in errors.items():
        if table is not None:
            shown = ", ".join(f"{key} {value:.1f}" for key, value in table.items())
            if "stress_rmse" in table:
                shown += f" ({table['stress_rmse'] * MEV_TO_GPA:.2f} GPa)"
            lines.append(f"{name}: {shown}")
    lines.append(f"model:   {out}")
    for line in lines:
        console.output.print(line, markup=False, soft_wrap=True)
