"""``labelwise study-weight``: which energy/force weight tells where a model errs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.table import Table

from labelwise.cli import console
from labelwise.cli.commands.study import StudyWeightCommand
from labelwise.cli.data_sets import read_usable
from labelwise.cli.tables import show_table
from labelwise.errors import MissingDependencyError
from labelwise.potentials import Potential
from labelwise.potentials.loading import require_model
from labelwise.runtime.part_store import without_nan
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.record import describe_potential
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
from labelwise.studies.weights.results import WeightStudy
from labelwise.studies.weights.study import study_weights


def run_study_weight(args: StudyWeightCommand) -> None:
    """Run ``labelwise study-weight``."""
    settings = args.settings
    is_talkative = not (args.quiet or args.as_json)
    with console.show_status("loading the model", enabled=is_talkative):
        potential = require_model(args.model)
    files = {
        "pool": args.pool,
        "train": args.train or [],
        "valid": args.valid or [],
        "test": args.test or [],
    }
    frames = {
        role: read_usable(names, potential, option=f"--{role}", enabled=not args.quiet)
        if names
        else []
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
            folder=args.out,
            force=args.force,
            batch_atoms=args.batch_atoms,
            progress=progress,
        )
    _write(args.out, study, quiet=args.quiet)
    if args.as_json:
        inputs = {
            "pool": args.pool,
            "train": args.train,
            "valid": args.valid,
            "test": args.test,
            "model": args.model.path,
        }
        typer.echo(to_json(_summarise(study, potential, inputs)), nl=False)
    elif is_talkative:
        _show(study, args.out)


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
