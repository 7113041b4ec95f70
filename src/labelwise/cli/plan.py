"""``labelwise plan``: what a selection will need, before it is begun."""

from __future__ import annotations

import time
from dataclasses import asdict

import typer
from rich import box
from rich.table import Table

from labelwise.cli import console
from labelwise.cli.commands.plan import PlanCommand
from labelwise.cli.tables import format_seconds, show_table
from labelwise.errors import ArgumentError
from labelwise.potentials.loading import load_model
from labelwise.runtime.memory import format_bytes
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.planning.plan import LargestStructure, Plan, make_plan
from labelwise.selection.record import describe_potential
from labelwise.selection.settings import AcquisitionSettings

_BUSY = 1.5


def run_plan(args: PlanCommand) -> None:
    """Run ``labelwise plan``."""
    settings = AcquisitionSettings(**asdict(args.selection), n_select=args.n_select)
    settings.check()
    if args.model.path is None and settings.needs_potential:
        raise ArgumentError(settings.explain_need_of_model())
    is_talkative = not (args.quiet or args.as_json)
    began = time.perf_counter()
    with console.show_status(
        "loading the model", enabled=is_talkative and args.model.path is not None
    ):
        potential = load_model(args.model)
    load_s = time.perf_counter() - began
    with console.show_status("trying", enabled=is_talkative):
        found = make_plan(
            _pool_files(args.files, args.pool),
            settings,
            train=args.train if args.train is not None else (),
            potential=potential,
            run=args.run,
            folder=args.store,
            load_s=load_s,
            seconds=args.seconds,
            n_structures=args.n_structures,
        )
    if args.as_json:
        record = {
            **found.as_dict(),
            "currency": args.currency,
            "model": None if potential is None else describe_potential(potential),
            "versions": package_versions(),
        }
        typer.echo(to_json(record), nl=False)
    elif is_talkative:
        _show(found, args.currency)


def _pool_files(files: list[str] | None, pool: list[str] | None) -> list[str]:
    given = [*(files if files is not None else []), *(pool if pool is not None else [])]
    if not given:
        raise ArgumentError("no pool was given: name its files, as 'labelwise plan --pool FILE'")
    return given


def _show(found: Plan, currency: str) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stage")
    for name in ("time", "from", "to"):
        table.add_column(name, justify="right")
    for stage in (*found.estimate.stages, found.estimate.total):
        if stage.name == "total":
            table.add_section()
        times = (stage.seconds, stage.low_s, stage.high_s)
        table.add_row(stage.name, *(format_seconds(seconds) for seconds in times))
    show_table(table)
    for line in [*_describe_run(found, currency), *_describe_largest(found), *_remarks(found)]:
        console.output.print(line, markup=False, soft_wrap=True)


def _describe_run(found: Plan, currency: str) -> list[str]:
    estimate = found.estimate
    work, trial = estimate.workload, found.rates.trial
    count = f"{work.n_structures:,} structures"
    if work.count_error > 0.0:
        count = f"about {count} (± {200.0 * work.count_error:.0f} %)"
    size = f"{count} of {work.atoms_per_structure:.1f} atoms"
    lines = [f"pool:    {size}, {work.n_train:,} labelled already"]
    if trial.width > 0:
        speed = f"{trial.structures_per_second:,.0f} structures/s on {trial.device}"
        lines.append(f"model:   {speed}, rows of {trial.width:,}")
    lines.append(_describe_largest_structure(found.largest))
    bound = f"of {format_bytes(float(estimate.memory_bound_bytes))}"
    least = f"at least {format_bytes(float(estimate.least_memory_bytes))}"
    lines.append(f"memory:  {format_bytes(float(estimate.peak_memory_bytes))} {bound}, {least}")
    free = f"{format_bytes(float(estimate.free_bytes))} free"
    lines.append(f"disk:    {format_bytes(float(estimate.store_bytes))}, {free}")
    if estimate.cost is not None:
        lines.append(f"cost:    {estimate.cost:,.2f} {currency}")
    return lines


def _describe_largest_structure(largest: LargestStructure) -> str:
    line = f"largest: {largest.n_atoms:,} atoms, in {largest.source.file}"
    if largest.memory_bytes is not None:
        line += f", takes about {format_bytes(largest.memory_bytes)}"
    if largest.why_too_large is not None:
        line += f"; it will be set aside: {largest.why_too_large}"
    return line


def _describe_largest(found: Plan) -> list[str]:
    largest = found.estimate.largest
    fits = [f"{largest.in_memory_bound:,} in memory"]
    if largest.rows_in_memory > 0:  # with a shortlist no rows are kept
        fits.append(f"{largest.rows_in_memory:,} with all rows in it")
    if found.rates.trial.width > 0:
        fits.append(f"{largest.on_disk:,} on the disk")
    if largest.in_hours is not None:
        fits.append(f"{largest.in_hours:,} in {found.estimate.run.hours:g} h")
    return [f"largest pool that fits: {', '.join(fits)}"]


def _remarks(found: Plan) -> list[str]:
    estimate, trial = found.estimate, found.rates.trial
    sample = f"{len(found.survey.frames):,} structures read, {trial.n_structures:,} represented"
    lines = [f"tried for {found.probe_s:.1f} s: {sample}"]
    if not found.survey.is_spread:
        lines.append(
            "the structures tried are the first ones of their files, which cannot be entered in "
            "the middle: if the others are larger, so are the times"
        )
    machine = found.rates.machine
    if machine.load_average > _BUSY * machine.n_cores:
        lines.append(
            f"other programs kept the {machine.n_cores} cores busy (load "
            f"{machine.load_average:.1f}): the plan holds while they do"
        )
    if trial.width > 0:
        lines.append(
            "writing the rows and choosing come on top: half a minute for 1,250 of 200,000 "
            "structures on two cores (benchmarks/results/scale.md)"
        )
    if estimate.run.n_gpus is not None:
        lines.append(f"reading is taken to be shared by {machine.n_cores} cores like those here")
    if not estimate.fits:
        lines.append("this does not fit: see memory and disk above")
    return lines
