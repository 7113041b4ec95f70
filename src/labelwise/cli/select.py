"""``labelwise select``: from a pool to the batch worth labelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import typer
from ase import Atoms
from rich import box
from rich.markup import escape
from rich.table import Table

from labelwise.cli import console
from labelwise.cli.commands.select import SelectCommand
from labelwise.cli.scale import (
    check_store,
    describe_extraction,
    device_here,
    open_engine,
)
from labelwise.cli.tables import show_table
from labelwise.errors import ArgumentError, ReadError, WriteError
from labelwise.features.fill import make_screen
from labelwise.pages.options import ReportOptions
from labelwise.pages.page import write_page
from labelwise.potentials import Potential
from labelwise.potentials.loading import load_model
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import to_json
from labelwise.selection.acquire import acquire
from labelwise.selection.force_uncertainty import predict_force_uncertainty
from labelwise.selection.input_files import describe_files, mark_files, warn_of_changes
from labelwise.selection.measures import SUFFIX, is_measures, write_measures
from labelwise.selection.page import gather_selection
from labelwise.selection.picks import FORCE_STD_KEY
from labelwise.selection.record import describe_model, summarise_acquisition
from labelwise.selection.results import Acquisition
from labelwise.selection.rules.batch import check_takes_target
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.structures import Source, iter_unscreened, write_structures
from labelwise.structures.labels import DEFAULT_FORCES_KEY
from labelwise.structures.reading import count_quickly, expand_specs
from labelwise.structures.screening import count_reasons

_N_SHOWN = 10


def run_select(args: SelectCommand) -> None:
    """Run ``labelwise select``."""
    settings = AcquisitionSettings(
        **asdict(args.selection),
        n_select=args.n_select,
        strict=args.strict,
        required_labels=_required_labels(
            args.energy_key, args.forces_key, force_std=args.force_std
        ),
        group_by=args.group_by,
    )
    settings.check()
    check_store(args.storing, args.engine)
    store, ray, memory_bytes = args.storing.store, args.engine.ray, args.storing.memory_bytes
    _check_request(args, settings)
    summary = args.out.with_suffix(".json") if args.summary is None else args.summary
    page = _name_page(args.report, args.out)
    _check_pool(args.pool)
    given = [*args.pool, *(args.train or []), *(args.target or [])]
    _check_outputs(args.out, summary, page, given, force=args.force)
    is_talkative = not (args.quiet or args.as_json)
    with console.show_status(
        "loading the model", enabled=is_talkative and args.model.path is not None
    ):
        potential = load_model(args.model, device=device_here(args.model.device, ray))
    totals = _count(args.pool, args.train) if is_talkative else {}
    # Of what is read below, not of what lies there when all is done.
    files = {
        "pool": describe_files(args.pool),
        "train": describe_files(args.train or []),
        "target": describe_files(args.target or []),
        "model": describe_model(args.model.path),
    }
    marks = mark_files(files)
    rows = None
    if store is not None:
        rows = open_store(
            store,
            settings,
            potential,
            storage_dtype=args.storing.store_dtype,
            say=console.warn,
        )
    with (
        console.show_progress(enabled=is_talkative, totals=totals) as progress,
        open_engine(args.engine, args.model.device, memory_bytes) as engine,
    ):
        acquisition = acquire(
            args.pool,
            args.train or [],
            settings,
            potential=potential,
            target=args.target or None,
            rows=rows,
            memory_bytes=memory_bytes,
            engine=engine,
            load=None if ray is None else partial(load_model, args.model),
            measured=page is not None,
            progress=progress,
            say=console.warn,
        )
    annotated = acquisition.annotate(acquisition.read_again())
    write_structures(args.out, annotated)  # before what may still fail: no selection is lost
    if args.force_std and potential is not None and args.train is not None:
        with console.show_status("predicting force errors", enabled=is_talkative):
            _note_force_std(annotated, potential, args.train, settings, args.forces_key)
        write_structures(args.out, annotated)
    warn_of_changes(files, marks)
    record = summarise_acquisition(
        acquisition,
        settings,
        potential,
        inputs={
            "pool": args.pool,
            "train": args.train or [],
            "target": args.target or [],
            "model": args.model.path,
            "out": str(args.out),
            "folder": str(Path.cwd()),
            "energy_key": args.energy_key,
            "forces_key": args.forces_key,
            "store": None if store is None else str(store),
            "store_dtype": args.storing.store_dtype,
            "files": files,
        },
    )
    write_text(summary, to_json(record))
    if page is not None and acquisition.measures is not None:
        places = [pick.pool_index for pick in acquisition.picks]
        write_measures(summary.with_suffix(SUFFIX), acquisition.measures, places)
    _write_page(page, summary, ReportOptions(seed=args.selection.seed), is_talkative=is_talkative)
    if args.as_json:
        typer.echo(to_json(record), nl=False)
    elif is_talkative:
        _show(acquisition, record, args.out, summary, store)
        if page is not None:
            console.output.print(f"page:    {page}", markup=False, soft_wrap=True)


def _check_request(args: SelectCommand, settings: AcquisitionSettings) -> None:
    """Find what does not go together before anything is read."""
    if args.force_std and (args.model.path is None or not args.train):
        raise ArgumentError(
            "--force-std compares the model with labelled forces: give --model and --train"
        )
    if args.model.path is None and settings.needs_potential:
        raise ArgumentError(settings.explain_need_of_model())
    if args.target:
        check_takes_target(settings.rule)
    if not args.out.name or args.out.is_dir():
        raise WriteError(f"cannot write {args.out}: it is a directory")


def _write_page(
    page: Path | None, summary: Path, wanted: ReportOptions, *, is_talkative: bool
) -> None:
    """Write the page of a selection that has just been made, if one is wanted."""
    if page is None:
        return
    with console.show_progress(enabled=is_talkative) as progress:
        document = gather_selection(summary, wanted, progress=progress)
    write_page(page, document)


def _name_page(report: str | None, out: Path) -> Path | None:
    """Return where the page goes, None if none is wanted."""
    if report is None:
        return None
    return Path(report) if report else out.with_suffix(".html")


def _required_labels(
    energy_key: str | None, forces_key: str | None, *, force_std: bool
) -> tuple[str, ...]:
    if force_std and forces_key is None:
        forces_key = DEFAULT_FORCES_KEY
    return tuple(key for key in (energy_key, forces_key) if key is not None)


def _note_force_std(
    chosen: Sequence[Atoms],
    potential: Potential,
    train: list[str],
    settings: AcquisitionSettings,
    forces_key: str | None,
) -> None:
    """Write the predicted standard deviations into ``info`` and ``arrays``.

    What the selection set aside of the labelled structures is left out here, too.
    """
    screen = make_screen(potential)
    frames = iter_unscreened(train)
    labelled = [frame.atoms for frame in frames if screen.check_train(frame) is None]
    found = predict_force_uncertainty(
        chosen,
        potential,
        train=labelled,
        options=replace(settings.options, n_probes=None, energy_weight=0.0),
        forces_key=DEFAULT_FORCES_KEY if forces_key is None else forces_key,
        batch_atoms=settings.batch_atoms,
    )
    for i, atoms in enumerate(chosen):
        atoms.info[FORCE_STD_KEY] = float(found.structure_std[i])
        if found.atom_std is not None:
            atoms.arrays[FORCE_STD_KEY] = found.atom_std[i]


def _count(pool: list[str], train: list[str] | None) -> dict[str, int]:
    """Return the totals of the stages' bars where they can be had at once."""
    counts = {"pool": count_quickly(pool), "train": count_quickly(train) if train else None}
    return {
        f"{verb} {role}": n
        for role, n in counts.items()
        for verb in ("read", "represent")
        if n is not None
    }


def _check_pool(pool: Sequence[str]) -> None:
    """Refuse pipes: the chosen frames are read a second time."""
    for part in expand_specs(pool):
        if not (part.path.is_file() or part.path.is_dir()):
            raise ReadError(
                f"{part.path} is not a regular file; a pool is read twice, so write it to one"
            )


def _check_outputs(
    out: Path, summary: Path, page: Path | None, inputs: Sequence[str], *, force: bool
) -> None:
    """Refuse to write over an input or over a file that is not ours."""
    sources = {part.path.resolve() for part in expand_specs(inputs)}
    if out.resolve() == summary.resolve():
        raise ArgumentError(f"--out and --summary are the same file: {out}")
    if page is not None and page.resolve() in (out.resolve(), summary.resolve()):
        raise ArgumentError(f"--report is the same file as --out or --summary: {page}")
    for target in (out, summary, *([] if page is None else [page])):
        if target.resolve() in sources:
            raise WriteError(f"{target} is one of the inputs; choose another --out")
        if target.is_dir():
            raise WriteError(f"cannot write {target}: it is a directory")
    if out.exists() and not force and not _is_own_batch(out):
        raise WriteError(
            f"{out} exists and was not written by 'labelwise select'; "
            "choose another --out, or replace it with --force"
        )
    measures = summary.with_suffix(SUFFIX)
    if page is not None and measures.exists() and not force and not is_measures(measures):
        raise WriteError(
            f"{measures} exists and was not written by 'labelwise select', which keeps there what "
            "the page needs; choose another --out, or replace it with --force"
        )


def _is_own_batch(path: Path) -> bool:
    with path.open("rb") as stream:
        return b"labelwise_rank=" in stream.read(1 << 16)


def _show(
    acquisition: Acquisition,
    record: dict[str, Any],
    out: Path,
    summary: Path,
    store: Path | None,
) -> None:
    table = Table(box=box.SIMPLE_HEAD, title=None)
    for name, side in (("rank", "right"), ("source", "left"), ("score", "right")):
        table.add_column(name, justify="right" if side == "right" else "left")
    table.add_column("nearest labelled")
    for pick in acquisition.picks[:_N_SHOWN]:
        nearest = "-" if pick.nearest_train is None else _short(pick.nearest_train)
        table.add_row(str(pick.rank), _short(pick.source), f"{pick.score:.4g}", nearest)
    show_table(table)
    if acquisition.groups:
        show_table(_group_table(acquisition, record["settings"]["group_by"]))
    counts = record["counts"]
    n_left = counts["selected"] - min(_N_SHOWN, counts["selected"])
    more = f" ({n_left} more in the file)" if n_left else ""
    chosen = f"chose {counts['selected']} of {counts['pool']} structures"
    lines = [f"{chosen}, {counts['train']} labelled already{more}"]
    if counts["screened"]:
        reasons = count_reasons(acquisition.screened)
        lines.append(f"set aside {counts['screened']}: {reasons} (listed in the summary)")
    lines += [f"{n} structures: {remark}" for remark, n in counts["remarks"].items()]
    seconds = ", ".join(
        f"{stage.name} {stage.seconds:.1f} s" for stage in acquisition.stages if stage.n_structures
    )
    lines += [f"time: {seconds}", f"batch:   {out}", f"summary: {summary}"]
    if acquisition.extraction is not None and store is not None:
        lines.append(describe_extraction(acquisition.extraction, store))
    for line in lines:
        console.output.print(line, markup=False, soft_wrap=True)


def _short(source: Source) -> str:
    """Return file name and frame; the summary has the whole path."""
    return escape(f"{Path(source.file).name}@{source.frame}")


def _group_table(acquisition: Acquisition, key: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(escape(key))
    table.add_column("chosen", justify="right")
    table.add_column("in the pool", justify="right")
    for name, (n_selected, n_offered) in acquisition.groups.items():
        table.add_row(escape(name) or "(none)", str(n_selected), str(n_offered))
    return table
