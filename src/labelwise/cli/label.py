"""``labelwise label``: energies and forces of any structures, resumable."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from labelwise.campaign.config import describe_mistakes
from labelwise.campaign.labelling import (
    CalculatorSettings,
    LabellingError,
    LabelsPending,
    SlurmSettings,
)
from labelwise.campaign.labelling.base import parse_settings
from labelwise.campaign.labelling.level import CalculationSettings
from labelwise.campaign.labelling.pool import LabelledPool, cancel_labelling, label_frames
from labelwise.campaign.yaml_files import override, read_overrides, read_settings
from labelwise.cli import console, data_sets
from labelwise.cli.campaign import EXIT_WAITING
from labelwise.cli.commands.label import LabelCommand
from labelwise.cli.signals import terminated_as_interrupted
from labelwise.errors import ArgumentError, WriteError
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import to_json
from labelwise.structures import iter_frames, write_structures

_COMMAND = "labelwise label"


def run_label(args: LabelCommand) -> None:
    """Run ``labelwise label``."""
    settings = _make_settings(args)
    record = args.out.with_suffix(".json")
    data_sets.check_targets([args.out, record], args.pool)
    for path in (args.out, record):
        _require_own(path, record, force=args.force)
    folder = args.out.with_name(f"{args.out.stem}.labelling")
    talkative = not (args.quiet or args.as_json)
    if args.cancel:
        with console.show_log(enabled=talkative):
            cancel_labelling(settings, folder, break_lock=args.break_lock)
        if talkative:
            console.say("no jobs are left; to go on, the same without --cancel")
        return
    try:
        with (
            terminated_as_interrupted(),
            console.show_log(enabled=talkative),
            console.show_progress(enabled=talkative) as progress,
        ):
            found = label_frames(
                list(iter_frames(args.pool)),
                settings,
                folder,
                wait=not args.no_wait,
                retry_failed=args.retry_failed,
                break_lock=args.break_lock,
                progress=progress,
            )
    except LabelsPending as pending:
        console.say(str(pending))
        raise typer.Exit(EXIT_WAITING) from pending
    labelled = found.make_labelled(args.keys)
    told = _describe(found, args, settings, n_labelled=len(labelled))
    write_text(record, to_json(told))  # first: by it the next run knows that both are its own
    if labelled:  # else what is there stays: it may be of another level, or somebody else's
        write_structures(args.out, labelled)
    if args.as_json:
        typer.echo(to_json(told), nl=False)
    if not labelled:
        raise LabellingError(
            f"none of {len(found.frames)} structures has a label: {_count_reasons(told)}; why, in "
            f"{record}. Mend what is wrong and run again with --retry-failed"
        )
    if talkative:
        _say(found, args, told)


def _make_settings(args: LabelCommand) -> CalculationSettings:
    """Return what file and options say of the labeller."""
    content: dict[str, Any] = {}
    if args.settings is not None:
        hint = "it holds the section 'labeller' of a campaign.yaml"
        content = read_settings(args.settings, error=ArgumentError, hint=hint)
        content = dict(content.get("labeller", content))
    content = override(content, read_overrides(args.changes or ()))
    content.setdefault("kind", "calculator")
    if args.slurm:
        content["kind"] = "slurm"
    if args.calculator is not None:
        content["calculator"] = args.calculator
    default = args.out.with_name(f"{args.out.stem}.labels")
    store = args.store if args.store is not None else Path(content.get("store") or default)
    content["store"] = str(store.absolute())
    try:
        settings = parse_settings(content)
    except ValidationError as error:
        kind = SlurmSettings if content["kind"] == "slurm" else CalculatorSettings
        raise ArgumentError(describe_mistakes(error, kind, "the labeller")) from error
    if not isinstance(settings, CalculationSettings):
        raise ArgumentError(f"kind is {settings.kind!r}; allowed are calculator and slurm")
    return settings


def _require_own(path: Path, record: Path, *, force: bool) -> None:
    """Refuse to replace what another command wrote."""
    if not path.exists() or force:
        return
    try:
        is_ours = json.loads(record.read_bytes()).get("command") == _COMMAND
    except (OSError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        raise WriteError(f"{path} exists; choose another place, or replace it with --force")


def _describe(
    found: LabelledPool, args: LabelCommand, settings: CalculationSettings, *, n_labelled: int
) -> dict[str, Any]:
    failures = [
        {
            "file": frame.source.file,
            "frame": frame.source.frame,
            "reason": failure.reason,
            "detail": failure.detail,
        }
        for frame, failure in found.iter_failed()
    ]
    return {
        "format_version": 1,
        "command": _COMMAND,
        "inputs": {"pool": args.pool, "out": str(args.out)},
        "settings": settings.model_dump(mode="json"),
        "level": found.level.name,
        "counts": {
            "read": len(found.frames),
            "labelled": n_labelled,
            "failed": len(failures),
            "already_known": found.n_known,
            "calculated": found.n_calculated,
        },
        "seconds": round(found.seconds, 3),
        "failures": failures,
    }


def _say(found: LabelledPool, args: LabelCommand, told: dict[str, Any]) -> None:
    counts, failed = told["counts"], _count_reasons(told)
    console.tell(
        f"{counts['labelled']} of {counts['read']} structures labelled at {found.level.name}: "
        f"{counts['calculated']} calculated in {found.seconds:.0f} s, "
        f"{counts['already_known']} known already",
        f"failed: {failed}; why, in {args.out.with_suffix('.json')}" if failed else None,
        str(args.out),
    )


def _count_reasons(told: dict[str, Any]) -> str:
    reasons = Counter(each["reason"] for each in told["failures"])
    return ", ".join(f"{n} {reason}" for reason, n in reasons.items())
