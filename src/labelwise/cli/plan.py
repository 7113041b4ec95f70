"""``labelwise plan``: what a selection will need, before it is begun."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from labelwise.cli import console, options
from labelwise.cli.app import app
from labelwise.cli.tables import format_seconds, show_table
from labelwise.errors import ArgumentError
from labelwise.potentials import Potential, load_potential
from labelwise.runtime.memory import format_bytes, parse_bytes
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.planning import LargestStructure, Plan, RunSettings, make_plan
from labelwise.selection.record import describe_potential
from labelwise.selection.settings import AcquisitionSettings

_RUN = "The run"
_COST = "Cost and limits"
_BUSY = 1.5


@app.command()
def plan(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="POOL", hidden=True, help="Unlabelled structures, as --pool."),
    ] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option(
            "--pool",
            metavar="FILE...",
            help="Unlabelled structures, as for 'select'; also without '--pool' before them.",
        ),
    ] = None,
    train: options.Train = None,
    n_select: Annotated[
        int, typer.Option("-n", "--n-select", min=1, help="Structures to choose.")
    ] = 1250,
    model: options.Model = None,
    head: options.Head = None,
    trust_model: options.Trust = False,
    representation: options.Representation = "ntk-e",
    parameters: options.ParameterBlock = options.Parameters.embedding,
    sketch_dim: options.SketchDim = None,
    reduction: options.Reduction = "fields",
    probes: options.Probes = options.DEFAULT_PROBES,
    energy_weight: options.EnergyWeight = 0.5,
    normalise: options.Normalise = None,
    rule: Annotated[
        str,
        typer.Option(
            "--rule", help="pv, lcmd, k-center, top or random.", rich_help_panel=options.CHOICE
        ),
    ] = "lcmd",
    shortlist: Annotated[
        int | None,
        typer.Option(
            "--shortlist",
            min=1,
            metavar="K",
            help="First keep the K structures of highest posterior variance.",
            rich_help_panel=options.CHOICE,
        ),
    ] = None,
    seed: options.Seed = 0,
    structures: Annotated[
        int | None,
        typer.Option(
            "--structures",
            min=1,
            metavar="N",
            help="Plan for a pool of N structures like those given; by default as many as they "
            "are.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    store: Annotated[
        Path,
        typer.Option(
            "--store",
            help="Where the feature store will be; a file of at most 64 MB is written there "
            "for a moment.",
            rich_help_panel=_RUN,
        ),
    ] = Path(),
    store_dtype: options.StoreDtype = options.StorageType.float32,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Bound on the memory of the process, as 4GB; by default half of what it may use.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            min=1,
            metavar="N",
            help="Represent on N GPUs like the one here, or like that of --structures-per-second.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    structures_per_second: Annotated[
        float | None,
        typer.Option(
            "--structures-per-second",
            metavar="R",
            help="Structures that one machine or GPU represents in a second, as 'plan --json' "
            "measured it there.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            "--price-per-hour",
            metavar="X",
            help="Of the machine, or of one of the GPUs.",
            rich_help_panel=_COST,
        ),
    ] = None,
    currency: Annotated[
        str, typer.Option("--currency", help="Of the price.", rich_help_panel=_COST)
    ] = "USD",
    hours: Annotated[
        float | None,
        typer.Option(
            "--hours",
            help="Also say how large a pool can be done in so many hours.",
            rich_help_panel=_COST,
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option("--seconds", help="How long to try.", rich_help_panel=options.MACHINE),
    ] = 10.0,
    device: options.OnDevice = "auto",
    dtype: options.InPrecision = None,
    batch_atoms: options.BatchAtoms = None,
    max_atoms: options.MaxAtoms = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Say what 'select' will need: time, memory, disk, cost, and the largest pool that fits.

    Tries model, rule and disk on a sample of the pool for about ten seconds.
    """
    settings = AcquisitionSettings(
        n_select=n_select,
        representation=representation,
        parameters=parameters.value,
        sketch_dim=sketch_dim,
        reduction=reduction,
        n_probes=options.parse_probes(probes),
        energy_weight=energy_weight,
        normalise=None if normalise is None else normalise.value,
        rule=rule,
        shortlist=shortlist,
        seed=seed,
        batch_atoms=batch_atoms,
        max_atoms=max_atoms,
    )
    settings.check()
    if model is None and settings.needs_potential:
        raise ArgumentError(
            f"representation {representation!r} needs a model: give --model PATH, a name from "
            "'labelwise models', or --model demo"
        )
    run = RunSettings(
        store_dtype=store_dtype.value,
        memory_bytes=None if memory is None else parse_bytes(memory),
        n_gpus=gpus,
        structures_per_second=structures_per_second,
        price_per_hour=price_per_hour,
        hours=hours,
    )
    is_talkative = not (quiet or as_json)
    began = time.perf_counter()
    with console.show_status("loading the model", enabled=is_talkative and model is not None):
        potential = _load(model, device, dtype, head, trust_model)
    load_s = time.perf_counter() - began
    with console.show_status("trying", enabled=is_talkative):
        found = make_plan(
            _pool_files(files, pool),
            settings,
            train=train if train is not None else (),
            potential=potential,
            run=run,
            folder=store,
            load_s=load_s,
            seconds=seconds,
            n_structures=structures,
        )
    if as_json:
        record = {
            **found.as_dict(),
            "currency": currency,
            "model": None if potential is None else describe_potential(potential),
            "versions": package_versions(),
        }
        typer.echo(to_json(record), nl=False)
    elif is_talkative:
        _show(found, currency)


def _load(
    model: str | None,
    device: str,
    dtype: options.Precision | None,
    head: str | None,
    trust_model: bool,
) -> Potential | None:
    if model is None:
        return None
    return load_potential(
        model,
        device=device,
        dtype=None if dtype is None else dtype.value,
        head=head,
        trust=trust_model,
    )


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
    work, road = estimate.workload, found.rates.road
    count = f"{work.n_structures:,} structures"
    if work.count_error > 0.0:
        count = f"about {count} (± {200.0 * work.count_error:.0f} %)"
    size = f"{count} of {work.atoms_per_structure:.1f} atoms"
    lines = [f"pool:    {size}, {work.n_train:,} labelled already"]
    if road.width > 0:
        speed = f"{road.structures_per_second:,.0f} structures/s on {road.device}"
        lines.append(f"model:   {speed}, rows of {road.width:,}")
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
    if found.rates.road.width > 0:
        fits.append(f"{largest.on_disk:,} on the disk")
    if largest.in_hours is not None:
        fits.append(f"{largest.in_hours:,} in {found.estimate.run.hours:g} h")
    return [f"largest pool that fits: {', '.join(fits)}"]


def _remarks(found: Plan) -> list[str]:
    estimate, road = found.estimate, found.rates.road
    sample = f"{len(found.survey.frames):,} structures read, {road.n_structures:,} represented"
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
    if not machine.reads_from_disk:
        lines.append("the speed of the disk is that of the system's file cache")
    if estimate.run.n_gpus is not None:
        lines.append(
            f"reading and neighbour lists are taken to be shared by {machine.n_cores} cores like "
            "those here"
        )
    if not estimate.fits:
        lines.append("this does not fit: see memory and disk above")
    return lines
