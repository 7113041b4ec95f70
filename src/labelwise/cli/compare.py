"""``labelwise compare``: methods of acquisition against each other on labelled pools."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import typer

from labelwise.campaign.errors import CampaignError
from labelwise.cli import console
from labelwise.cli.commands.compare import CompareCommand
from labelwise.cli.signals import terminated_as_interrupted
from labelwise.errors import ArgumentError, WriteError
from labelwise.pages.libraries import read_libraries
from labelwise.pages.page import write_page
from labelwise.potentials.loading import resolve_device
from labelwise.runtime.cores import resolve_workers, usable_cores
from labelwise.runtime.files import write_text
from labelwise.runtime.timing import parse_duration
from labelwise.studies.comparison.adjusting import adjust_study
from labelwise.studies.comparison.budget import scale_to_budget
from labelwise.studies.comparison.comparing import report_study, run_study
from labelwise.studies.comparison.diagnosis import measure_diagnosis
from labelwise.studies.comparison.inputs import SampleOptions
from labelwise.studies.comparison.page.gathering import show_comparison
from labelwise.studies.comparison.presets import make_preset
from labelwise.studies.comparison.protocols import PRESETS
from labelwise.studies.comparison.record import read_record
from labelwise.studies.comparison.study import (
    StudyConfig,
    check_study,
    dump_study,
    list_cells,
    override_study,
    read_study,
)
from labelwise.studies.comparison.study_file import STUDY_FILE

#: The study as it is run, when a budget or options changed it.
RESOLVED_FILE = "study.resolved.yaml"


@dataclass(frozen=True)
class _Place:
    """A study, the folder of its campaigns, and where its relative paths begin."""

    study: StudyConfig
    folder: Path
    base: Path


def run_compare(args: CompareCommand) -> None:
    """Run ``labelwise compare``."""
    if (args.study is None) == (args.preset is None):
        raise ArgumentError(
            f"give a study.yaml, or --preset with one of {', '.join(PRESETS)}; not both"
        )
    is_talkative = not (args.quiet or args.as_json)
    say = console.say if is_talkative else _say_nothing
    place = _open(args)
    n_processes = resolve_workers(args.workers) or _count_devices(place.study, args.threads)
    if args.budget is not None:
        place = _scale(place, args.budget, n_processes, force=args.force, quiet=not is_talkative)
    cells = list_cells(place.study, place.folder, place.base)
    for change in place.study.changes:
        say(f"scaled: {change}")
    say(
        f"{len(cells)} campaigns of {cells[0].n_rounds} rounds: methods "
        f"{', '.join(place.study.methods)}; pools {', '.join(place.study.pools)}; seeds "
        f"{', '.join(map(str, place.study.seeds))}"
    )
    if args.dry_run:
        return
    failures: dict[Any, str] = {}
    if not args.tables_only:
        with (
            terminated_as_interrupted(),
            console.show_log(enabled=is_talkative),
            console.show_progress(enabled=is_talkative) as progress,
        ):
            run = run_study(
                place.study,
                place.folder,
                place.base,
                n_processes=n_processes,
                n_threads=args.threads,
                force=args.force,
                progress=progress,
            )
        failures = run.failures
    with console.show_log(enabled=is_talkative):
        files = report_study(place.study, place.folder, place.base, measures=not args.tables_only)
    files += _write_page(place, args, quiet=not is_talkative)
    if args.as_json:
        typer.echo((place.folder / "results.json").read_text(encoding="utf-8"), nl=False)
    elif is_talkative:
        _show(files)
    if failures:
        listed = "\n".join(
            f"  {key.pool} / {key.method} / seed {key.seed}: {words}"
            for key, words in failures.items()
        )
        raise CampaignError(f"{len(failures)} of {len(cells)} campaigns failed:\n{listed}")


def _open(args: CompareCommand) -> _Place:
    """Return the study that is asked for, with what the command changes of it."""
    if args.study is None:
        place = _make_preset(args)
    else:
        path = args.study / STUDY_FILE if args.study.is_dir() else args.study
        folder = path.parent if args.out is None else args.out
        place = _take_part(_Place(read_study(path), folder, path.parent), args.methods)
        changes: dict[str, Any] = {"seeds": list(args.seeds)} if args.seeds is not None else {}
        changes |= {"rounds": args.rounds} if args.rounds is not None else {}
        changes |= {"model.trust": True} if args.model.trust else {}
        place = replace(place, study=override_study(place.study, {**changes, **args.changes}))
    adjusted = adjust_study(place.study, n_updates=args.max_updates, stride=args.thin)
    return replace(place, study=adjusted)


def _take_part(place: _Place, names: tuple[str, ...] | None) -> _Place:
    """Return a study of some of its methods."""
    study = place.study
    if names is None:
        return place
    missing = [name for name in names if name not in study.methods]
    if missing:
        raise ArgumentError(
            f"--methods: {', '.join(missing)} not in the study; it has {', '.join(study.methods)}"
        )
    if study.reference not in names:
        raise ArgumentError(f"--methods must have the reference, {study.reference}")
    chosen = {name: study.methods[name] for name in names}
    return replace(place, study=override_study(study, {"methods": chosen}))


def _make_preset(args: CompareCommand) -> _Place:
    """Make a preset's study, or take the one that the same arguments made before."""
    folder = Path(f"compare-{args.preset}") if args.out is None else args.out
    path = folder / STUDY_FILE
    study = make_preset(
        str(args.preset),
        folder,
        model=asdict(args.model),
        data=args.data or [],
        methods=args.methods,
        seeds=args.seeds,
        rounds=args.rounds,
        group_by=args.group_by,
        order_by=args.order_by,
        shift=args.shift,
        strength=args.strength,
        size=args.size,
        **asdict(args.labels),
    )
    made = override_study(study, args.changes)
    if path.exists():
        known = read_study(path)
        if known != made and not args.force:
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
            place.study,
            place.folder,
            place.base,
            seconds=parse_duration(budget),
            n_processes=n_processes,
        )
    content = scaled.model_dump(mode="json")
    content["origin"] = {**scaled.origin, "budget": budget, "scaled_from": digest}
    scaled = check_study(content)
    write_text(path, dump_study(scaled))
    return _Place(scaled, place.folder, place.base)


def _count_devices(study: StudyConfig, n_threads: int) -> int:
    """Return how many campaigns may run at once: what the cores allow, but one on a GPU."""
    if resolve_device(study.model.device).type != "cpu":
        return 1
    return max(1, usable_cores() // n_threads)


def _say_nothing(_message: str) -> None:
    """Tell nobody."""


def _write_page(place: _Place, args: CompareCommand, *, quiet: bool) -> list[Path]:
    """Write the page of a study and return it; a failure is told and costs the page alone.

    Its kernels are looked at first, for which the model is loaded, unless ``--tables-only``.
    """
    if args.no_report:
        return []
    page = place.folder / "report.html"
    try:
        read_libraries()  # before anything is computed that could not be shown
        with console.show_status("making the page", enabled=not quiet):
            record = read_record(place.folder)
            if not args.tables_only:
                model = place.study.model
                asked = SampleOptions(device=model.device, trust_model=model.trust)
                measure_diagnosis(record, asked)
            write_page(page, show_comparison(record))
    except Exception as error:  # a study is worth more than its page
        console.warn(f"no page of the study: {error or type(error).__name__}")
        return []
    return [page]


def _show(files: list[Path]) -> None:
    for path in files:
        console.output.print(str(path), markup=False, soft_wrap=True)
