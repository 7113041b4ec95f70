"""``labelwise summarise``: the few structures that stand for a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ase import Atoms
from rich import box
from rich.markup import escape
from rich.table import Table

from labelwise.cli import console, data_sets, options
from labelwise.cli.app import app
from labelwise.cli.tables import show_table
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import to_json
from labelwise.selection.results import POOL_INDEX_KEY, RANK_KEY, SCORE_KEY, SOURCE_KEY
from labelwise.selection.rules.base import DEFAULT_REGULARISATION
from labelwise.structures import write_structures
from labelwise.studies.curation.data_set import DataSet
from labelwise.studies.curation.summarising import (
    HERDING,
    Coverage,
    CoverageMeter,
    Representatives,
    assign_to,
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


@app.command()
def summarise(
    pool: options.Pool,
    n_select: Annotated[int, typer.Option("-n", "--n-select", min=1, help="Structures to keep.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where they go, as extended XYZ.")
    ] = Path("summary.extxyz"),
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
            "--rule",
            help="herding (moments of the whole set), lcmd (with weights), k-center (covering "
            "radius), pv or random.",
            rich_help_panel=options.CHOICE,
        ),
    ] = HERDING,
    regularisation: Annotated[
        float,
        typer.Option("--regularisation", help="λ of pv.", rich_help_panel=options.CHOICE),
    ] = DEFAULT_REGULARISATION,
    seed: options.Seed = 0,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Fail when a structure would be set aside.",
            rich_help_panel=options.CHOICE,
        ),
    ] = False,
    n_random: Annotated[
        int,
        typer.Option(
            "--n-random",
            min=0,
            help="Random subsets of equal size that the figures are held against.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = 5,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="KEY",
            help="Compare the parts of the groups by this info key.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    device: options.OnDevice = "auto",
    dtype: options.InPrecision = None,
    batch_atoms: options.BatchAtoms = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary",
            help="Where the JSON summary goes; by default beside the structures.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    force: options.Force = False,
) -> None:
    """Choose the few structures that stand for a data set, and measure how well they do.

    Each is written with the part of the set that is nearest to it, its weight.
    """
    check_rule(rule)
    choice = data_sets.choose_kernel(
        representation, parameters, sketch_dim, reduction, probes, energy_weight, normalise, seed,
        model, batch_atoms,
    )  # fmt: skip
    choice.require()
    summary = out.with_suffix(".json") if summary is None else summary
    data_sets.check_targets([out, summary], pool)
    data_sets.check_own(out, f"{WEIGHT_KEY}=".encode(), "summarise", force=force)
    talkative = not (quiet or as_json)
    data, kernel, potential = data_sets.load(
        pool, choice, head=head, trust_model=trust_model, device=device, dtype=dtype,
        strict=strict, talkative=talkative,
    )  # fmt: skip
    if kernel is None:
        raise AssertionError("choice.require() sees to a kernel")
    groups = None if group_by is None else data.groups(group_by)
    with console.show_status("choosing", enabled=talkative):
        selection = choose_representatives(
            kernel,
            n_select,
            rule=rule,
            exclude=data.is_repeat,
            seed=seed,
            regularisation=regularisation,
        )
        chosen = assign_to(kernel, selection)
        meter = CoverageMeter(kernel, groups)
        figures = meter.measure(chosen)
        # Seeds after the rule's own, or --rule random would be held against itself.
        seeds = range(seed + 1, seed + 1 + n_random)
        baseline = meter.measure_random(n_select, seeds)
    write_structures(out, _annotate(data, chosen))
    record = {
        "format_version": 1,
        "inputs": {"pool": pool, "model": model, "out": str(out)},
        "settings": {
            "n_select": n_select,
            "rule": rule,
            "regularisation": regularisation,
            "seed": seed,
            "random_seeds": list(seeds),
            "group_by": group_by,
        },
        **data_sets.describe(data, choice, potential, with_kernel=True),
        "figures": asdict(figures),
        "random": _average(baseline),
        "groups": _count_groups(groups, chosen),
        "picks": _describe_picks(data, chosen),
        "assignment": {
            "index": data.indices.tolist(),
            "rank": chosen.nearest.tolist(),
            "distance": [round(value, 8) for value in chosen.distance.tolist()],
        },
    }
    write_text(summary, to_json(record))
    if as_json:
        typer.echo(to_json(record), nl=False)
    elif talkative:
        _show(data, record, out, summary)


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


def _average(baseline: Sequence[Coverage]) -> dict[str, Any] | None:
    """Return mean and standard deviation of every figure over random subsets."""
    if not baseline:
        return None
    averaged: dict[str, Any] = {}
    for field in fields(Coverage):
        values = [getattr(figures, field.name) for figures in baseline]
        known = None not in values
        averaged[field.name] = {
            "mean": float(np.mean(values)) if known else None,
            "std": float(np.std(values, ddof=1)) if known and len(values) > 1 else None,
        }
    return averaged


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
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("0 is best")
    for column in ("chosen", "random", "ratio"):
        table.add_column(column, justify="right")
    for name, words in _FIGURES.items():
        value = record["figures"][name]
        if value is None:
            continue
        mean = None if record["random"] is None else record["random"][name]["mean"]
        ratio = f"{value / mean:.2f}" if mean else "-"
        table.add_row(words, f"{value:.4g}", "-" if mean is None else f"{mean:.4g}", ratio)
    show_table(table)
    if record["groups"]:
        counts = Table(box=box.SIMPLE_HEAD)
        counts.add_column(escape(record["settings"]["group_by"]))
        for column in ("chosen", "in the set", "part chosen", "part of the set"):
            counts.add_column(column, justify="right")
        n_chosen = len(record["picks"])
        for name, count in record["groups"].items():
            parts = (f"{count['chosen'] / n_chosen:.3f}", f"{count['set'] / len(data):.3f}")
            counts.add_row(
                escape(name) or "(none)", str(count["chosen"]), str(count["set"]), *parts
            )
        show_table(counts)
    lines = [
        f"{len(record['picks'])} of {len(data)} structures, by {record['settings']['rule']}",
        data_sets.say_set_aside(data),
        f"structures: {out}",
        f"summary:    {summary}",
    ]
    for line in lines:
        if line is not None:
            console.output.print(line, markup=False, soft_wrap=True)
