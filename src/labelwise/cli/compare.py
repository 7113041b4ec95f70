"""``labelwise compare``: methods of acquisition against each other on labelled pools."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from labelwise.campaign.config import EnergyErrors
from labelwise.campaign.errors import CampaignError
from labelwise.cli import console, options
from labelwise.cli.app import app
from labelwise.cli.signals import terminated_as_interrupted
from labelwise.errors import ArgumentError, WriteError
from labelwise.pages.libraries import read_libraries
from labelwise.pages.page import write_page
from labelwise.potentials.loading import resolve_device
from labelwise.runtime.files import write_text
from labelwise.selection.page.options import ReportOptions
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY
from labelwise.studies.comparison.adjusting import adjust_study
from labelwise.studies.comparison.budget import parse_duration, scale_to_budget
from labelwise.studies.comparison.comparing import report_study, run_study
from labelwise.studies.comparison.page import gather_comparison
from labelwise.studies.comparison.pool_bias import SHIFTS
from labelwise.studies.comparison.presets import PRESETS, make_preset
from labelwise.studies.comparison.study import (
    STUDY_FILE,
    StudyConfig,
    check_study,
    dump_study,
    list_cells,
    read_study,
)

#: The study as it is run, when a budget or options changed it.
RESOLVED_FILE = "study.resolved.yaml"
_PRESET, _PART, _SCALE, _ERRORS = "Preset", "Part of a study", "Scale", "Errors"


@dataclass(frozen=True)
class _Place:
    """A study, the folder of its campaigns, and where its relative paths begin."""

    study: StudyConfig
    folder: Path
    base: Path


@app.command()
def compare(
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="STUDY", help="study.yaml, or a folder that has one.", show_default=False
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help=f"A protocol of the papers in place of STUDY: {', '.join(PRESETS)}.",
            rich_help_panel=_PRESET,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="PATH...",
            help="Labelled structures of a preset: files, or folders of pool, valid and "
            "test.extxyz; by default the embedded reactions. Or published files, see 'labelwise "
            "data list'.",
            rich_help_panel=_PRESET,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="MODEL", help="As for 'labelwise select'.", rich_help_panel=_PRESET
        ),
    ] = "demo",
    family_key: Annotated[
        str,
        typer.Option("--family-key", help="Info key of the reaction.", rich_help_panel=_PRESET),
    ] = "reaction",
    order_key: Annotated[
        str,
        typer.Option(
            "--order-key", help="Info key of the place along the path.", rich_help_panel=_PRESET
        ),
    ] = "frame",
    shift: Annotated[
        str,
        typer.Option(
            "--shift",
            callback=options.words_of("shift", SHIFTS),
            help="By what pool-bias shifts its pools: family, path, energy.",
            rich_help_panel=_PRESET,
        ),
    ] = "family,path,energy",
    strength: Annotated[
        str,
        typer.Option(
            "--strength",
            help="How strongly pool-bias shifts them; several with commas between.",
            rich_help_panel=_PRESET,
        ),
    ] = "3",
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            min=10,
            help="Structures of a published data set in place of the protocol's number.",
            rich_help_panel=_PRESET,
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="These only: a,b,c.", rich_help_panel=_PART),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", help="These only: 0,1.", rich_help_panel=_PART),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, help="Rounds after round 0.", rich_help_panel=_PART),
    ] = None,
    updates: Annotated[
        int | None,
        typer.Option(
            "--updates", min=1, help="Most updates of a fine-tuning.", rich_help_panel=_SCALE
        ),
    ] = None,
    thin: Annotated[
        int,
        typer.Option(
            "--thin", min=1, help="Of each pool every K-th structure.", rich_help_panel=_SCALE
        ),
    ] = 1,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile updates for this machine, once; needs a C++ compiler.",
            rich_help_panel=_SCALE,
        ),
    ] = None,
    split_key: Annotated[
        str | None,
        typer.Option(
            "--split-key",
            help="Info key of a test structure's split; tables of each split as well.",
            rich_help_panel=_ERRORS,
        ),
    ] = None,
    exclude_fixed: Annotated[
        bool,
        typer.Option(
            "--exclude-fixed",
            help="Leave the forces of fixed atoms out of errors.",
            rich_help_panel=_ERRORS,
        ),
    ] = False,
    energy_errors: Annotated[
        str | None,
        typer.Option(
            "--energy-errors",
            callback=options.words_of("energy_errors", get_args(EnergyErrors)),
            help="total, or per-atom for structures of different sizes.",
            rich_help_panel=_ERRORS,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="Scale the study to this machine and wall time: 45m, 2h, 1h30m.",
            rich_help_panel=_SCALE,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of campaigns and results; by default the study's own.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            "-j",
            min=1,
            help="Campaigns at once; by default one a core, and one on a GPU.",
            rich_help_panel=options.MACHINE,
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option("--threads", min=1, help="Threads of each.", rich_help_panel=options.MACHINE),
    ] = 1,
    tables_only: Annotated[
        bool,
        typer.Option(
            "--tables-only",
            help="Run nothing; write tables and curves of what is there.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    no_report: Annotated[
        bool,
        typer.Option(
            "--no-report", help="Do not write report.html.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be run, and stop.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    energy_key: Annotated[
        str,
        typer.Option("--energy-key", help="Info key of the energies, eV.", rich_help_panel=_PRESET),
    ] = DEFAULT_ENERGY_KEY,
    forces_key: Annotated[
        str,
        typer.Option(
            "--forces-key", help="Array key of the forces, eV/Å.", rich_help_panel=_PRESET
        ),
    ] = DEFAULT_FORCES_KEY,
    head: options.Head = None,
    trust_model: options.Trust = False,
    device: options.OnDevice = "auto",
    dtype: options.InPrecision = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Begin campaigns anew that were begun with other settings.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
) -> None:
    """Run every method on every pool with every seed, and write the papers' tables.

    Each is a campaign in a folder of its own. Killed or interrupted, the same command goes
    on where it stopped. Writes results.md, a CSV for each table, learning curves, and
    report.html, a page that shows it all.
    """
    if (study is None) == (preset is None):
        raise ArgumentError(
            f"give a study.yaml, or --preset with one of {', '.join(PRESETS)}; not both"
        )
    is_talkative = not (quiet or as_json)
    say = console.say if is_talkative else _say_nothing
    if study is not None:
        place = _find_study(study, out)
        place = _take_part(place, methods, seeds, rounds)
        place = _trust(place) if trust_model else place
    else:
        section = {
            "path": model,
            "device": device,
            "dtype": None if dtype is None else dtype.value,
            "head": head,
            "trust": trust_model,
        }
        arguments = {
            "data": data or [],
            "model": section,
            "methods": _names(methods),
            "seeds": _integers(seeds, "--seeds"),
            "rounds": rounds,
            "family_key": family_key,
            "order_key": order_key,
            "energy_key": energy_key,
            "forces_key": forces_key,
            "shift": _names(shift) or [],
            "strength": _numbers(strength, "--strength"),
            "size": size,
        }
        place = _make_preset(str(preset), arguments, out, force=force)
    adjusted = adjust_study(
        place.study,
        n_updates=updates,
        stride=thin,
        compiled=compiled,
        split_key=split_key,
        fixed_forces="exclude" if exclude_fixed else None,
        energy_errors=energy_errors,
    )
    place = replace(place, study=adjusted)
    n_processes = processes if processes is not None else _count_devices(place.study)
    if budget is not None:
        place = _scale(place, budget, n_processes, force=force, quiet=not is_talkative)
    cells = list_cells(place.study, place.folder, place.base)
    for change in place.study.changes:
        say(f"scaled: {change}")
    say(
        f"{len(cells)} campaigns of {cells[0].n_rounds} rounds: methods "
        f"{', '.join(place.study.methods)}; pools {', '.join(place.study.pools)}; seeds "
        f"{', '.join(map(str, place.study.seeds))}"
    )
    if dry_run:
        return
    failures: dict[Any, str] = {}
    if not tables_only:
        with (
            terminated_as_interrupted(),
            console.show_progress(enabled=is_talkative) as progress,
        ):
            run = run_study(
                place.study,
                place.folder,
                place.base,
                n_processes=n_processes,
                n_threads=threads,
                force=force,
                progress=progress,
                say=say,
            )
        failures = run.failures
    files = report_study(place.study, place.folder, place.base, say=say)
    files += _write_page(place, enabled=not no_report, quiet=not is_talkative)
    if as_json:
        typer.echo((place.folder / "results.json").read_text(encoding="utf-8"), nl=False)
    elif is_talkative:
        _show(files)
    if failures:
        listed = "\n".join(
            f"  {key.pool} / {key.method} / seed {key.seed}: {words}"
            for key, words in failures.items()
        )
        raise CampaignError(f"{len(failures)} of {len(cells)} campaigns failed:\n{listed}")


def _trust(place: _Place) -> _Place:
    """Return a study whose model may run code when it is loaded."""
    model = place.study.model.model_copy(update={"trust": True})
    return replace(place, study=place.study.model_copy(update={"model": model}))


def _find_study(study: Path, out: Path | None) -> _Place:
    path = study / STUDY_FILE if study.is_dir() else study
    found = read_study(path)
    return _Place(found, path.parent if out is None else out, path.parent)


def _take_part(place: _Place, methods: str | None, seeds: str | None, rounds: int | None) -> _Place:
    """Return a study of some of the methods and seeds, and of other rounds."""
    study = place.study
    content = study.model_dump(mode="json")
    names = _names(methods)
    if names is not None:
        missing = [name for name in names if name not in study.methods]
        if missing:
            raise ArgumentError(
                f"--methods: {', '.join(missing)} not in the study; it has "
                f"{', '.join(study.methods)}"
            )
        content["methods"] = {name: study.methods[name] for name in names}
        if study.reference not in names:
            raise ArgumentError(f"--methods must have the reference, {study.reference}")
    if seeds is not None:
        content["seeds"] = _integers(seeds, "--seeds")
    if rounds is not None:
        content["rounds"] = rounds
    return _Place(check_study(content), place.folder, place.base)


def _make_preset(name: str, arguments: dict[str, Any], out: Path | None, *, force: bool) -> _Place:
    """Make a preset's study, or take the one that the same arguments made before."""
    folder = Path(f"compare-{name}") if out is None else out
    path = folder / STUDY_FILE
    made = make_preset(name, folder, **arguments)
    if path.exists():
        known = read_study(path)
        if known != made and not force:
            raise WriteError(
                f"{path} is another study: give --out another folder, run it with 'labelwise "
                f"compare {folder}', or replace it with --force"
            )
    write_text(path, dump_study(made))
    return _Place(made, folder, folder)


def _scale(place: _Place, budget: str, n_processes: int, *, force: bool, quiet: bool) -> _Place:
    """Scale a study to a budget; once scaled, the same study and budget stay as they are.

    The times that decide are measured anew each time and never quite the same.
    """
    text = f"{dump_study(place.study)}{parse_duration(budget):g} s on {n_processes}"
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    path = place.folder / RESOLVED_FILE
    if path.exists() and not force:
        known = read_study(path)
        if known.origin.get("scaled_from") == digest:
            return _Place(known, place.folder, place.base)
    with console.show_status("measuring this machine", enabled=not quiet):
        scaled = scale_to_budget(
            place.study, place.base, seconds=parse_duration(budget), n_processes=n_processes
        )
    content = scaled.model_dump(mode="json")
    content["origin"] = {**scaled.origin, "budget": budget, "scaled_from": digest}
    scaled = check_study(content)
    write_text(path, dump_study(scaled))
    return _Place(scaled, place.folder, place.base)


def _names(words: str | None) -> list[str] | None:
    if words is None:
        return None
    return [word.strip() for word in words.split(",") if word.strip()]


def _integers(words: str | None, option: str) -> list[int] | None:
    names = _names(words)
    if names is None:
        return None
    if not names or not all(name.isascii() and name.isdigit() for name in names):
        raise ArgumentError(f"{option} is {words!r}; give integers with commas between: 0,1")
    return [int(name) for name in names]


def _numbers(words: str, option: str) -> list[float]:
    try:
        return [float(word) for word in words.split(",")]
    except ValueError as error:
        raise ArgumentError(f"{option} is {words!r}; give numbers such as 1,3") from error


def _count_devices(study: StudyConfig) -> int:
    """Return how many campaigns may run at once: one a core, but only one on a GPU."""
    if resolve_device(study.model.device).type != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _say_nothing(_message: str) -> None:
    """Tell nobody."""


def _write_page(place: _Place, *, enabled: bool, quiet: bool) -> list[Path]:
    """Write the page of a study and return it; a failure is told and costs the page alone."""
    if not enabled:
        return []
    page = place.folder / "report.html"
    try:
        read_libraries()  # before anything is computed that could not be shown
        with console.show_status("making the page", enabled=not quiet):
            model = place.study.model
            asked = ReportOptions(device=model.device, trust_model=model.trust)
            write_page(page, gather_comparison(place.folder, asked))
    except Exception as error:  # a study is worth more than its page
        console.warn(f"no page of the study: {error or type(error).__name__}")
        return []
    return [page]


def _show(files: list[Path]) -> None:
    for path in files:
        console.output.print(str(path), markup=False, soft_wrap=True)
