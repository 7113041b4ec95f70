"""``labelwise campaign``: select, label, fine-tune, measure, repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import typer
from rich import box
from rich.table import Table

from labelwise.campaign.config import MeasureSection, read_config
from labelwise.campaign.curves import CURVES, write_curves
from labelwise.campaign.errors import DamagedStateError
from labelwise.campaign.export import export_round
from labelwise.campaign.labelling import LabellingError, LabelsPending
from labelwise.campaign.loop import (
    RunOptions,
    cancel_campaign,
    override_campaign,
    run_campaign,
)
from labelwise.campaign.page.writer import CampaignPages
from labelwise.campaign.rounds import RoundRecord, get_curve, has_stress_errors
from labelwise.campaign.saved import SavedCampaign, find_best_round, read_saved
from labelwise.campaign.shared_cache import SharedCache
from labelwise.campaign.state import CampaignState, read_state
from labelwise.campaign.template import write_template
from labelwise.campaign.yaml_files import read_overrides
from labelwise.cli import console
from labelwise.cli.commands.campaign import (
    CampaignCancelCommand,
    CampaignExportCommand,
    CampaignInitCommand,
    CampaignRunCommand,
    CampaignStatusCommand,
)
from labelwise.cli.signals import terminated_as_interrupted
from labelwise.cli.tables import format_figure, format_seconds, show_table
from labelwise.errors import ArgumentError, MissingDependencyError, WriteError
from labelwise.runtime.cores import resolve_workers
from labelwise.runtime.engines import ProcessEngine
from labelwise.runtime.provenance import to_json

#: The campaign waits for labels that are made elsewhere.
EXIT_WAITING = 4


def run_campaign_init(args: CampaignInitCommand) -> None:
    """Run ``labelwise campaign init``."""
    if args.template:
        path = write_template(args.directory)
        console.output.print(f"{path}", markup=False, soft_wrap=True)
        console.say(f"edit it, then: labelwise campaign run {args.directory}")
        return
    config = read_config(args.directory)
    console.say(
        f"{args.directory} is in order: {config.selection.rule}, {config.selection.batch_size} a "
        f"round, labels by {config.labeller.kind}"
    )


def run_campaign_run(args: CampaignRunCommand) -> None:
    """Run ``labelwise campaign run``."""
    chosen = RunOptions(
        args.rounds,
        args.accept_changes,
        args.retry_failed,
        args.break_lock,
        survey=not args.no_report,
        wait=not args.no_wait,
    )
    pages = CampaignPages(args.directory, enabled=not args.no_report, warn=console.warn)
    if args.changes:
        changes = read_overrides(args.changes)
        override_campaign(args.directory, changes, chosen)
    try:
        with (
            terminated_as_interrupted(),
            console.show_log(enabled=not args.quiet),
            ProcessEngine(resolve_workers(args.workers), n_threads=args.threads) as engine,
            console.show_progress(enabled=not args.quiet) as progress,
        ):
            reason = run_campaign(
                args.directory,
                chosen,
                shared=SharedCache(engine=engine),
                progress=progress,
                after_round=pages.write_round,
            )
            pages.write(stopped=reason)
    except (LabelsPending, LabellingError) as error:
        pages.write()
        if not isinstance(error, LabelsPending):
            _name_page(pages, quiet=args.quiet)
            raise
        console.say(str(error))
        _name_page(pages, quiet=args.quiet)
        raise typer.Exit(EXIT_WAITING) from error
    if not args.quiet:
        console.say(f"stopped: {reason}")
    _name_page(pages, quiet=args.quiet)
    state = read_state(args.directory)
    _draw(state, quiet=args.quiet)
    if not args.quiet:
        _show(read_saved(state))


def run_campaign_cancel(args: CampaignCancelCommand) -> None:
    """Run ``labelwise campaign cancel``."""
    with console.show_log(enabled=not args.quiet):
        cancel_campaign(args.directory, break_lock=args.break_lock)
    if not args.quiet:
        console.say(f"no jobs are left; to go on: labelwise campaign run {args.directory}")


def _name_page(pages: CampaignPages, *, quiet: bool) -> None:
    if pages.is_written and not quiet:
        console.say(f"page: {pages.path}")


def run_campaign_status(args: CampaignStatusCommand) -> None:
    """Run ``labelwise campaign status``."""
    state = read_state(args.directory)
    found = read_saved(state, ask=True)
    if args.as_json:
        typer.echo(to_json(found.as_dict()), nl=False)
    else:
        _show(found)
    with suppress(WriteError):  # somebody else's campaign can be looked at, too
        _draw(state, quiet=True)
    if found.damage:
        raise DamagedStateError(f"{'; '.join(found.damage)}; put back what was there")


def run_campaign_export(args: CampaignExportCommand) -> None:
    """Run ``labelwise campaign export``."""
    if args.best == (args.n_round is not None):
        raise ArgumentError("give one of --best and --round N")
    state = read_state(args.directory)
    chosen = args.n_round if args.n_round is not None else find_best_round(state.rounds)
    folder = export_round(
        state, chosen, args.directory / "export" if args.out is None else args.out
    )
    console.output.print(f"round {chosen} in {folder}", markup=False, soft_wrap=True)


def _draw(state: CampaignState, *, quiet: bool) -> None:
    """Draw the learning curves if there are any and matplotlib is installed."""
    if not get_curve(state.rounds, "forces_rmse"):
        return
    try:
        write_curves(state.directory / CURVES, state.rounds, state.config.measure)
    except MissingDependencyError as error:
        if not quiet:
            console.say(str(error))


def _show(found: SavedCampaign) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    stress = has_stress_errors(found.rounds)
    errors = ("E RMSE", "F MAE", "F RMSE", *(("S RMSE",) if stress else ()))
    for name in ("round", "labelled", "failed", *errors, "on", "time", "peak"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in found.rounds:
        table.add_row(*_row(record, found.config.measure.energy_error, stress=stress))
    show_table(table)
    for line in _lines(found):
        console.output.print(line, markup=False, soft_wrap=True)


def _row(record: RoundRecord, energy_error: str, *, stress: bool) -> list[str]:
    names = (energy_error, "forces_mae", "forces_rmse", *(("stress_rmse",) if stress else ()))
    measured = [format_figure(record.error(name)) if record.role else "-" for name in names]
    measured[0] += "*" if record.is_undetermined else ""
    counts = [str(record.n_round), str(record.n_train), str(record.n_failed)]
    cost = [format_seconds(record.seconds), f"{record.peak_mib:.0f} MiB"]
    return [*counts, *measured, record.role or "-", *cost]


def _stage_totals(rounds: Sequence[RoundRecord]) -> str:
    """Return the seconds of each stage over all rounds."""
    totals: dict[str, float] = {}
    for record in rounds:
        for name, stage in record.stages.items():
            totals[name] = totals.get(name, 0.0) + stage["seconds"]
    return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in totals.items())


def _split_lines(record: RoundRecord, shown: MeasureSection) -> list[str]:
    """Return a line for each split of the test set after a round."""
    return [
        f"{name}: {errors['n_structures']} structures, "
        f"energy RMSE {errors[shown.energy_error]:.1f} {shown.energy_unit}, "
        f"forces RMSE {errors['forces_rmse']:.1f} meV/Å"
        + (f", stress RMSE {errors['stress_rmse']:.2f} meV/Å³" if "stress_rmse" in errors else "")
        for name, errors in record.split_errors.items()
    ]


def _sum_lines(found: SavedCampaign, shown: MeasureSection) -> list[str]:
    """Return a line for the sums over rounds; energies that are no result are not summed."""
    names: dict[str, tuple[str, str]] = {
        shown.energy_error: ("energy", shown.energy_unit),
        "forces_rmse": ("forces", "meV/Å"),
    }
    sums = [
        f"{names[error][0]} RMSE {value:.1f} {names[error][1]}"
        for error, value in found.auc.items()
    ]
    if found.undetermined and sums:
        sums.append("energies are not summed up, see *")
    return [f"sum over rounds: {', '.join(sums)}"] if sums else []


def _message_lines(messages: Mapping[int, Sequence[str]]) -> list[str]:
    """Return what the last fit had to say, and which earlier ones had something to say."""
    if not messages:
        return []
    *earlier, last = sorted(messages)
    lines = [f"round {last}: {message}" for message in messages[last]]
    if earlier:
        listed = ", ".join(map(str, earlier))
        lines.append(f"what earlier fits had to say (round {listed}) is in their finetune.json")
    return lines


def _lines(found: SavedCampaign) -> list[str]:
    lines = []
    shown = found.config.measure
    if found.rounds:
        unit = shown.energy_unit
        lines.append(f"errors in {unit} and meV/Å; all of them are in rounds.jsonl")
        lines += _split_lines(found.rounds[-1], shown)
        lines += [found.undetermined] if found.undetermined else []
        lines.append(f"stages: {_stage_totals(found.rounds)}")
    lines += _sum_lines(found, shown)
    lines += _message_lines(found.messages)
    failed = ", ".join(f"{n} {reason}" for reason, n in found.failures.items())
    lines.append(
        f"labels: {len(found.state.labels)}" + (f"; set aside: {failed}" if failed else "")
    )
    lines.append(f"time: {found.hours:.2f} h, calculations {found.calculation_hours:.2f} h")
    if found.forecast is not None:
        each = found.forecast
        lines.append(
            f"one more batch: forces RMSE {each.now:.1f} → about {each.expected:.1f} meV/Å "
            f"({-each.gain:+.1%}; power law through the last rounds, which scatter by a "
            f"factor of {each.spread:.2f} about it)"
        )
    if found.waiting_file:
        lines.append(f"waiting: {found.n_waiting} structures in {found.waiting_file}")
    if found.queue is not None:
        lines.append(f"jobs: {found.queue.describe()}")
    ahead = f"finished: {found.finished}" if found.finished else f"next: {found.next}"
    lines.append(ahead + (f"; run by {found.holder}" if found.holder else ""))
    return lines
