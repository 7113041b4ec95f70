"""``labelwise study-weight``: which energy/force weight tells where a model errs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from labelwise.cli import console, options
from labelwise.cli.app import app
from labelwise.cli.data_sets import read_usable
from labelwise.cli.tables import show_table
from labelwise.errors import ArgumentError, MissingDependencyError
from labelwise.potentials import PARAMETER_BLOCKS, Potential, load_potential
from labelwise.runtime.part_store import without_nan
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.record import describe_potential
from labelwise.selection.rules.joint_posterior import DEFAULT_JOINT_REGULARISATION
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY
from labelwise.studies.weights.report import (
    PAGE,
    PICTURE,
    TABLE,
    describe,
    draw_study,
    format_line,
    list_lines,
    name_columns,
    write_page,
    write_table,
)
from labelwise.studies.weights.results import DEFAULT_WEIGHTS, WeightStudy, WeightStudySettings
from labelwise.studies.weights.study import study_weights

_BATCHES = "Batches"


@app.command(name="study-weight")
def study_weight(
    pool: Annotated[
        list[str],
        typer.Option("--pool", metavar="FILE...", help="Structures with energies and forces."),
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="As for 'labelwise select'.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder; a study that was interrupted goes on there."),
    ],
    train: Annotated[
        list[str] | None,
        typer.Option(
            "--train",
            metavar="FILE...",
            help="Labelled structures, not in the pool; by default drawn from it.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            help="Weights of the energy: 0 forces only, 1 energy only.",
            rich_help_panel=options.CHOICE,
        ),
    ] = ",".join(f"{weight:g}" for weight in DEFAULT_WEIGHTS),
    parameters: Annotated[
        str,
        typer.Option(
            "--parameters",
            help="Blocks of parameters to compare.",
            rich_help_panel=options.CHOICE,
        ),
    ] = ",".join(PARAMETER_BLOCKS),
    reduction: Annotated[
        str,
        typer.Option(
            "--reduction",
            help="Of the force rows of ntk-ef: rms, element-rms, force-norm, fields, moments.",
            rich_help_panel=options.CHOICE,
        ),
    ] = "fields",
    probes: options.Probes = options.DEFAULT_PROBES,
    sketch_dim: options.SketchDim = None,
    regularisation: Annotated[
        float,
        typer.Option(
            "--regularisation",
            help="λ of the joint posterior.",
            rich_help_panel=options.CHOICE,
        ),
    ] = DEFAULT_JOINT_REGULARISATION,
    n_train: Annotated[
        int,
        typer.Option("--n-train", min=1, help="Labelled structures drawn from the pool."),
    ] = 15,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Random labelled sets.")] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything that is drawn.")] = 0,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            min=0,
            metavar="B",
            help="Also fine-tune on the labelled structures and a batch of B.",
            rich_help_panel=_BATCHES,
        ),
    ] = 0,
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test",
            metavar="FILE...",
            help="What fine-tunings are measured on.",
            rich_help_panel=_BATCHES,
        ),
    ] = None,
    valid: Annotated[
        list[str] | None,
        typer.Option(
            "--valid",
            metavar="FILE...",
            help="What chooses their best epoch.",
            rich_help_panel=_BATCHES,
        ),
    ] = None,
    max_updates: Annotated[
        int | None,
        typer.Option("--max-updates", min=1, help="Of a fine-tuning.", rich_help_panel=_BATCHES),
    ] = None,
    energy_key: options.EnergyKey = DEFAULT_ENERGY_KEY,
    forces_key: options.ForcesKey = DEFAULT_FORCES_KEY,
    head: options.Head = None,
    trust_model: options.Trust = False,
    device: options.OnDevice = "auto",
    dtype: options.InPrecision = None,
    batch_atoms: options.BatchAtoms = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Compute anew what --out has of other settings.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
) -> None:
    """Compare energy/force weights and blocks of parameters on labelled structures.

    A few structures count as labelled, the others are scored, and the scores are held
    against the model's true errors. Writes weights.csv, weights.md, weights.png and a JSON
    file for each finished block.
    """
    settings = WeightStudySettings(
        parameters=_names(parameters),
        weights=_numbers(weights),
        reductions=_names(reduction),
        n_probes=options.parse_probes(probes),
        n_train=n_train,
        n_repeats=repeats,
        regularisation=regularisation,
        batch_size=batch_size,
        max_updates=max_updates,
        sketch_dim=sketch_dim,
        seed=seed,
        energy_key=energy_key,
        forces_key=forces_key,
    )
    is_talkative = not (quiet or as_json)
    with console.show_status("loading the model", enabled=is_talkative):
        potential = load_potential(
            model,
            device=device,
            dtype=None if dtype is None else dtype.value,
            head=head,
            trust=trust_model,
        )
    files = {"pool": pool, "train": train or [], "valid": valid or [], "test": test or []}
    frames = {
        role: read_usable(names, potential, option=f"--{role}", enabled=not quiet) if names else []
        for role, names in files.items()
    }
    atoms = {role: [frame.atoms for frame in found] for role, found in frames.items()}
    with console.show_progress(enabled=is_talkative) as progress:
        study = study_weights(
            potential,
            atoms["pool"],
            settings,
            train=atoms["train"],
            valid=atoms["valid"],
            test=atoms["test"],
            pool_sources=[frame.source for frame in frames["pool"]],
            folder=out,
            force=force,
            batch_atoms=batch_atoms,
            progress=progress,
        )
    _write(out, study, quiet=quiet)
    if as_json:
        inputs = {"pool": pool, "train": train, "valid": valid, "test": test, "model": model}
        typer.echo(to_json(_summarise(study, potential, inputs)), nl=False)
    elif is_talkative:
        _show(study, out)


def _names(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",") if word.strip())


def _numbers(words: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in _names(words))
    except ValueError as error:
        raise ArgumentError(
            f"--weights is {words!r}; give numbers from 0 to 1 with commas between: 0,0.5,1"
        ) from error


def _write(out: Path, study: WeightStudy, *, quiet: bool) -> None:
    write_table(out / TABLE, study)
    write_page(out / PAGE, study)
    try:
        draw_study(out / PICTURE, study)
    except MissingDependencyError as error:
        if not quiet:
            console.say(f"no {PICTURE}: {error}")


def _summarise(study: WeightStudy, potential: Potential, inputs: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = without_nan(asdict(study))
    for name in ("force_errors", "energy_errors"):  # one a structure: they are in the folder
        del content["reference"][name]
    return {
        "format_version": 1,
        "inputs": inputs,
        "model": describe_potential(potential),
        "versions": package_versions(),
        **content,
    }


def _show(study: WeightStudy, out: Path) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for place, name in enumerate(name_columns(study)):
        table.add_column(name, justify="left" if place < 2 else "right", no_wrap=True)
    former: tuple[str, str] | None = None
    for line in list_lines(study):
        if former is not None and (line.parameters, line.kernel) != former:
            table.add_section()
        former = (line.parameters, line.kernel)
        # Without these spaces the columns fit into 80 characters.
        table.add_row(*(cell.replace(" ± ", "±") for cell in format_line(line, study)))
    show_table(table)
    lines = describe(study)
    if study.resumed:
        lines.append(f"finished by an earlier run: {', '.join(study.resumed)}")
    lines.append(f"table:   {out / TABLE}")
    for words in lines:
        console.output.print(words, markup=False, soft_wrap=True)
