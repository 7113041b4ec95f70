"""``labelwise summarise``: the few structures that stand for a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from ase import Atoms

from labelwise.cli import console, data_sets
from labelwise.cli.commands.summarise import SummariseCommand
from labelwise.cli.tables import show_rows
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import to_json
from labelwise.selection.results import POOL_INDEX_KEY, RANK_KEY, SCORE_KEY, SOURCE_KEY
from labelwise.structures import write_structures
from labelwise.studies.curation.data_set import DataSet
from labelwise.studies.curation.summarising import (
    CoverageMeter,
    Representatives,
    assign_to,
    average_coverage,
    check_rule,
    choose_representatives,
)

WEIGHT_KEY = "labelwise_weight"
_FIGURES = {
    "mean_distance": "mean distance to nearest",
    "max_distance": "covering radius",
    "mmd": "MMD, means",
    "weighted_mmd": "MMD, means, with weights",
    "moment_mmd": "MMD, means and second moments",
    "group_difference": "difference in groups",
}


def run_summarise(args: SummariseCommand) -> None:
    """Run ``labelwise summarise``."""
    check_rule(args.rule)
    data_sets.is_possible(args)  # tells a wrong name
    data_sets.require_kernel(args)
    summary = args.out.with_suffix(".json") if args.summary is None else args.summary
    data_sets.check_targets([args.out, summary], args.pool)
    data_sets.check_own(args.out, f"{WEIGHT_KEY}=".encode(), "summarise", force=args.force)
    talkative = not (args.quiet or args.as_json)
    data, kernel, potential = data_sets.load(args, strict=args.strict, talkative=talkative)
    if kernel is None:
        raise AssertionError("data_sets.require_kernel(args) sees to a kernel")
    groups = None if args.group_by is None else data.groups(args.group_by)
    with console.show_status("choosing", enabled=talkative):
        selection = choose_representatives(
            kernel,
            args.n_select,
            rule=args.rule,
            exclude=data.is_repeat,
            seed=args.kernel.seed,
            regularisation=args.regularisation,
        )
        chosen = assign_to(kernel, selection)
        meter = CoverageMeter(kernel, groups)
        figures = meter.measure(chosen)
        # Seeds after the rule's own, or --rule random would be held against itself.
        seeds = range(args.kernel.seed + 1, args.kernel.seed + 1 + args.n_random)
        baseline = meter.measure_random(args.n_select, seeds)
    write_structures(args.out, _annotate(data, chosen))
    record = {
        "format_version": 1,
        "inputs": {"pool": args.pool, "model": args.model.path, "out": str(args.out)},
        "settings": {
            "n_select": args.n_select,
            "rule": args.rule,
            "regularisation": args.regularisation,
            "seed": args.kernel.seed,
            "random_seeds": list(seeds),
            "group_by": args.group_by,
        },
        **data_sets.describe(data, args, potential, with_kernel=True),
        "figures": asdict(figures),
        "random": average_coverage(baseline) if baseline else None,
        "groups": _count_groups(groups, chosen),
        "picks": _describe_picks(data, chosen),
        "assignment": {
            "index": data.indices.tolist(),
            "rank": chosen.nearest.tolist(),
            "distance": [round(value, 8) for value in chosen.distance.tolist()],
        },
    }
    write_text(summary, to_json(record))
    if args.as_json:
        typer.echo(to_json(record), nl=False)
    elif talkative:
        _show(data, record, args.out, summary)


def _annotate(data: DataSet, chosen: Representatives) -> list[Atoms]:
    """Return copies of the chosen structures with ``labelwise_*`` info keys."""
    annotated = []
    for rank, place in enumerate(chosen.idx.tolist()):
        atoms = data.structures[place]
        copy: Atoms = atoms.copy()
        copy.calc = atoms.calc
        copy.info[RANK_KEY] = rank
        copy.info[POOL_INDEX_KEY] = int(data.indices[place])
        copy.info[SOURCE_KEY] = str(data.sources[place])
        copy.info[SCORE_KEY] = float(chosen.score[rank])
        copy.info[WEIGHT_KEY] = float(chosen.weight[rank])
        annotated.append(copy)
    return annotated


def _count_groups(groups: Sequence[str] | None, chosen: Representatives) -> dict[str, Any]:
    if groups is None:
        return {}
    part = Counter(groups[i] for i in chosen.idx.tolist())
    return {name: {"chosen": part[name], "set": n} for name, n in Counter(groups).most_common()}


def _describe_picks(data: DataSet, chosen: Representatives) -> list[dict[str, Any]]:
    return [
        {
            "rank": rank,
            "pool_index": int(data.indices[place]),
            "file": data.sources[place].file,
            "frame": data.sources[place].frame,
            "score": float(chosen.score[rank]),
            "weight": float(chosen.weight[rank]),
        }
        for rank, place in enumerate(chosen.idx.tolist())
    ]


def _show(data: DataSet, record: dict[str, Any], out: Path, summary: Path) -> None:
    rows = []
    for name, words in _FIGURES.items():
        value = record["figures"][name]
        if value is None:
            continue
        mean = None if record["random"] is None else record["random"][name]["mean"]
        ratio = f"{value / mean:.2f}" if mean else "-"
        rows.append((words, f"{value:.4g}", "-" if mean is None else f"{mean:.4g}", ratio))
    show_rows(("0 is best", "chosen", "random", "ratio"), rows)
    if record["groups"]:
        n_chosen = len(record["picks"])
        show_rows(
            (
                record["settings"]["group_by"], "chosen", "in the set", "part chosen",
                "part of the set",
            ),
            [
                (
                    name or "(none)", str(count["chosen"]), str(count["set"]),
                    f"{count['chosen'] / n_chosen:.3f}", f"{count['set'] / len(data):.3f}",
                )
                for name, count in record["groups"].items()
            ],
        )  # fmt: skip
    console.tell(
        f"{len(record['picks'])} of {len(data)} structures, by {record['settings']['rule']}",
        data_sets.say_set_aside(data),
        f"structures: {out}",
        f"summary:    {summary}",
    )
