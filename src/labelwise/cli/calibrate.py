"""``labelwise calibrate``: does a kernel know how large the model's errors are?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from labelwise.cli import console
from labelwise.cli.commands.calibrate import CalibrateCommand
from labelwise.cli.data_sets import read_usable
from labelwise.cli.tables import show_rows
from labelwise.errors import MissingDependencyError
from labelwise.potentials import Potential
from labelwise.potentials.loading import require_model
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.record import describe_potential
from labelwise.studies.diagnostics.calibration import calibrate as run_calibration
from labelwise.studies.diagnostics.calibration_pictures import draw_prefixes, draw_reliability
from labelwise.studies.diagnostics.calibration_report import (
    PAGE,
    TABLE,
    as_plain_data,
    describe,
    format_line,
    list_warnings,
    name_columns,
    write_page,
    write_table,
)
from labelwise.studies.diagnostics.calibration_results import Calibration, CalibrationSets

SUMMARY = "calibration.json"


def run_calibrate(args: CalibrateCommand) -> None:
    """Run ``labelwise calibrate``."""
    representation = replace(args.representation, seed=args.settings.seed)
    settings = replace(args.settings, options=representation)
    files = {"pool": args.pool, "train": args.train or [], "valid": args.valid, "test": args.test}
    is_talkative = not (args.quiet or args.as_json)
    with console.show_status("loading the model", enabled=is_talkative):
        potential = require_model(args.model)
    sets = _read(files, potential, enabled=not args.quiet)
    with console.show_progress(enabled=is_talkative) as progress:
        calibration = run_calibration(
            potential,
            sets,
            settings,
            folder=args.out,
            force=args.force,
            batch_atoms=args.batch_atoms,
            progress=progress,
        )
    summary = _summarise(calibration, potential, {**files, "model": args.model.path})
    _write(args.out, calibration, summary, quiet=args.quiet)
    if args.as_json:
        typer.echo(summary, nl=False)
    elif is_talkative:
        _show(calibration, args.out)


def _read(files: dict[str, list[str]], potential: Potential, *, enabled: bool) -> CalibrationSets:
    frames = {
        role: read_usable(names, potential, option=f"--{role}", enabled=enabled) if names else []
        for role, names in files.items()
    }
    return CalibrationSets(
        **{role: [frame.atoms for frame in found] for role, found in frames.items()},
        sources={role: [frame.source for frame in found] for role, found in frames.items()},
    )


def _summarise(calibration: Calibration, potential: Potential, inputs: dict[str, Any]) -> str:
    return to_json(
        {
            "format_version": 1,
            "inputs": inputs,
            "model": describe_potential(potential),
            "versions": package_versions(),
            **as_plain_data(calibration),
        }
    )


def _write(out: Path, calibration: Calibration, summary: str, *, quiet: bool) -> None:
    write_table(out / TABLE, calibration)
    write_page(out / PAGE, calibration)
    write_text(out / SUMMARY, summary)
    try:
        draw_reliability(out, calibration)
        draw_prefixes(out, calibration)
    except MissingDependencyError as error:
        if not quiet:
            console.say(f"no pictures: {error}")


def _show(calibration: Calibration, out: Path) -> None:
    short = len(calibration.kernels[0].replays) > 1
    rows = [format_line(kernel, short=short) for kernel in calibration.kernels]
    show_rows(name_columns(short=short), rows, is_dense=True)
    for line in describe(calibration, short=short):
        console.output.print(line, markup=False)
    for line in list_warnings(calibration):
        console.warn(line)
    if calibration.resumed:
        console.tell(f"finished by an earlier run: {', '.join(calibration.resumed)}")
    console.tell(f"results: {out}")
