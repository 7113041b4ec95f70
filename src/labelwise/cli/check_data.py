"""``labelwise check-data``: duplicates, outliers and labels that do not fit."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from ase import Atoms

from labelwise.cli import console, data_sets
from labelwise.cli.commands.check_data import CheckDataCommand
from labelwise.cli.tables import show_rows
from labelwise.errors import WriteError
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import to_json
from labelwise.runtime.settings import check_bounds
from labelwise.structures import write_structures
from labelwise.studies.curation.checking import DataReport, Finding, check_data
from labelwise.studies.curation.data_set import DataSet

_N_SHOWN = 8
_KINDS = (
    "near-duplicate", "label-conflict", "bad-label", "energy-outlier", "force-outlier",
    "unconverged", "reversed-forces", "force-scale", "structure-outlier",
)  # fmt: skip
#: What is looked for with a kernel, with a model and labels, and without labels, alone.
_WITH_KERNEL = ("near-duplicate", "structure-outlier")
_WITH_MODEL = ("reversed-forces", "force-scale")


def run_check_data(args: CheckDataCommand) -> None:
    """Run ``labelwise check-data``."""
    settings = args.settings
    check_bounds(settings)
    data_sets.is_possible(args)  # tells a wrong name
    data_sets.check_targets(
        [path for path in (args.out, args.summary) if path is not None], args.pool
    )
    for path in (args.out, args.summary):
        if path is not None and path.exists() and not args.force:
            raise WriteError(f"{path} exists; choose another place, or replace it with --force")
    talkative = not (args.quiet or args.as_json)
    data, kernel, potential = data_sets.load(
        args, strict=False, talkative=talkative, needs_all=args.out is not None
    )
    with console.show_status("checking", enabled=talkative):
        report = check_data(
            data, kernel, settings, potential=potential, batch_atoms=args.kernel.batch_atoms
        )
    record = {
        "format_version": 1,
        "inputs": {
            "pool": args.pool,
            "model": args.model.path,
            "out": None if args.out is None else str(args.out),
        },
        "settings": asdict(settings),
        **data_sets.describe(data, args, potential, with_kernel=kernel is not None),
        **_describe(data, report, settings.group_by),
    }
    if args.out is not None:
        write_structures(args.out, _without_repeats(data))
    if args.summary is not None:
        write_text(args.summary, to_json(record))
    if args.as_json:
        typer.echo(to_json(record), nl=False)
    elif talkative:
        _show(data, report, record, args.out)


def _without_repeats(data: DataSet) -> list[Atoms]:
    """Return all structures as read, set aside or not, but the repeats."""
    repeat = data.is_repeat
    numbered = [
        (int(data.indices[i]), atoms) for i, atoms in enumerate(data.structures) if not repeat[i]
    ]
    numbered += [(item.index, atoms) for item, atoms in zip(data.screened, data.aside, strict=True)]
    return [atoms for _, atoms in sorted(numbered, key=lambda pair: pair[0])]


def _describe(data: DataSet, report: DataReport, group_by: str | None) -> dict[str, Any]:
    def place(position: int) -> dict[str, Any]:
        atoms, source = data.structures[position], data.sources[position]
        told: dict[str, Any] = {
            "index": int(data.indices[position]),
            "file": source.file,
            "frame": source.frame,
        }
        if group_by is not None:
            told["group"] = str(atoms.info.get(group_by, ""))
        return told

    return {
        "labelled": report.n_labelled,
        "label_keys": report.label_keys,
        "messages": report.messages,
        "compared_under_kernel": report.n_checked,
        "exact_duplicates": [[place(i) for i in places] for places in report.equal_sets],
        "groups_sharing_a_structure": [
            {"groups": [a, b], "structures": n} for a, b, n in report.shared_groups
        ],
        "groups_nearly_sharing_a_structure": [
            {"groups": [a, b], "distance": value} for a, b, value in report.nearest_groups
        ],
        "findings": [
            {
                "kind": found.kind,
                **place(found.position),
                "value": _number(found.value),
                "score": _number(found.score),
                "other": None if found.other is None else place(found.other),
                "detail": found.detail,
            }
            for found in report.findings
        ],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _show(data: DataSet, report: DataReport, record: dict[str, Any], out: Path | None) -> None:
    counts = [("exact duplicates", str(record["counts"]["exact_duplicates"]))]
    for kind in _KINDS:
        n_found = str(len(report.of_kind(kind)))
        is_open = _is_open(kind, report, has_model=record["model"] is not None)
        counts.append((_plural(kind), "not looked for" if is_open else n_found))
    show_rows(("found", "structures"), counts)
    if report.equal_sets or report.findings:
        show_rows(("kind", "structure", "what"), _worst(data, report), n_words=3)
    lines = [
        f"{data.n_read} structures, {report.n_labelled} of them labelled",
        data_sets.say_set_aside(data),
        None if report.n_checked else "give --model to compare structures under a kernel",
    ]
    lines += [
        f"groups {a} and {b} share {n} structure{'s' if n > 1 else ''} exactly"
        for a, b, n in report.shared_groups
    ]
    exact = {(a, b) for a, b, _ in report.shared_groups}
    lines += [
        f"groups {a} and {b} come within a kernel distance of {value:.2g}"
        for a, b, value in report.nearest_groups
        if (a, b) not in exact
    ]
    if out is not None:
        lines.append(f"without exact duplicates: {out}")
    lines += report.messages
    console.tell(*lines)


def _is_open(kind: str, report: DataReport, *, has_model: bool) -> bool:
    """Return whether findings of a kind could not be looked for."""
    if kind in _WITH_KERNEL:
        return report.n_checked == 0
    return report.label_keys is None or (kind in _WITH_MODEL and not has_model)


def _plural(kind: str) -> str:
    words = kind.replace("-", " ")
    return words if kind in ("unconverged", "reversed-forces") else f"{words}s"


def _worst(data: DataSet, report: DataReport) -> list[tuple[str, str, str]]:
    """Return rows of the first findings of each kind."""
    rows = []
    left_out = 0
    for places in report.equal_sets[:_N_SHOWN]:
        others = ", ".join(_short(data, i) for i in places[1:])
        rows.append(("exact duplicate", _short(data, places[0]), f"equals {others}"))
    left_out += max(0, len(report.equal_sets) - _N_SHOWN)
    for kind in _KINDS:
        found = report.of_kind(kind)
        rows += [
            (kind.replace("-", " "), _short(data, item.position), _words(data, item))
            for item in found[:_N_SHOWN]
        ]
        left_out += max(0, len(found) - _N_SHOWN)
    if left_out:
        rows.append(("...", f"{left_out} more", "all are in the record: --json or --summary"))
    return rows


def _words(data: DataSet, found: Finding) -> str:
    other = "" if found.other is None else f", of {_short(data, found.other)}"
    score = f" ({found.score:+.1f} σ)" if math.isfinite(found.score) else ""
    return found.detail + other + score


def _short(data: DataSet, position: int) -> str:
    source = data.sources[position]
    return f"{Path(source.file).name}@{source.frame}"
