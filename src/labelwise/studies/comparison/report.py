"""A comparison as a page, tables for other programs, and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labelwise.errors import MissingDependencyError
from labelwise.runtime.files import write_bytes, write_text
from labelwise.studies.comparison import tables, wording
from labelwise.studies.comparison.curves import draw_pictures, list_curves, render
from labelwise.studies.comparison.markdown import (
    format_cost,
    format_gain,
    format_mean,
    format_pair,
    format_ratio,
    make_table,
)
from labelwise.studies.comparison.ratio_picture import draw_ratios
from labelwise.studies.comparison.results import CellKey, CellResult, MethodCost, unit_of
from labelwise.studies.comparison.series import Comparison, Series, compare_cells
from labelwise.studies.comparison.statistics import (
    CONFIDENCE,
    estimate_mean,
)
from labelwise.studies.comparison.tables import SHOWN_GAINS, Table

PAGE, RECORD = "results.md", "results.json"
_PICTURES = {
    "ratios": "Ratios with intervals and all pairs",
    "curves": "Learning curves",
    "curves_pools": "Learning curves by pool",
    "committees": "Rank correlation of committee deviation and true error",
}


def write_report(
    folder: Path,
    results: Sequence[CellResult],
    costs: Sequence[MethodCost] = (),
    *,
    reference: str = "random",
    energy_errors: str = "total",
    title: str,
    notes: Sequence[str] = (),
    planned: Sequence[CellKey] = (),
    with_pictures: bool = True,
) -> list[Path]:
    """Write everything that a comparison says, as far as its cells are finished.

    ``results.md`` with all tables, ``results.json``, one CSV a table, and the pictures. Tables
    and pictures that have nothing to show are not written, and those of an earlier report of
    this folder are removed.

    Args:
        folder: Where to write; made if missing.
        results: The cells of the study, finished or not, in the order in which methods and
            pools are to appear.
        costs: What scoring with each method takes.
        reference: The method that others are held against.
        energy_errors: ``total``, as in the papers, or ``per-atom``: which energy errors tables,
            CSV and pictures show. ``curves.csv`` and the cells of ``results.json`` have both.
        title: Of the page.
        notes: Paragraphs for the page: how the study was run.
        planned: All cells of the study, so that the page can say which are missing; by default
            every known method with each pool and seed.
        with_pictures: Whether to draw, which takes seconds; tables take a moment.

    Returns:
        The files, the page first.

    Raises:
        ArgumentError: Two cells of the same pool, method, seed and start, or an unknown word
            for energy_errors.
        WriteError: A file cannot be written.
    """
    comparison = compare_cells(
        results, reference=reference, planned=planned, energy_errors=energy_errors
    )
    made = [table for table in make_tables(comparison, costs) if table.rows]
    try:
        pictures = _draw_all(comparison) if with_pictures else {}
    except MissingDependencyError as error:
        pictures = {}
        notes = [*notes, f"Without pictures: {error}"]
    texts = {
        PAGE: make_page(comparison, costs, title=title, notes=notes, pictures=tuple(pictures)),
        **{f"{table.name}.csv": table.as_csv() for table in made},
        RECORD: make_record(comparison, made, title=title, notes=notes),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    for name, content in pictures.items():
        write_bytes(folder / name, content)
    _remove_stale(folder, kept={*texts, *pictures})
    return [folder / name for name in (*texts, *pictures)]


def _draw_all(comparison: Comparison) -> dict[str, bytes]:
    pictures = draw_pictures(comparison)
    ratios = draw_ratios(comparison)
    if ratios is not None:
        pictures |= {f"ratios.{suffix}": render(ratios, suffix) for suffix in ("png", "svg")}
    return pictures


def make_tables(comparison: Comparison, costs: Sequence[MethodCost]) -> list[Table]:
    """Make all tables, in the order of the page; some may have no rows."""
    return [
        tables.make_errors_table(comparison),
        tables.make_pools_table(comparison),
        tables.make_splits_table(comparison),
        tables.make_gain_table(comparison),
        tables.make_scratch_table(comparison),
        tables.make_cost_table(comparison, costs),
        tables.make_committees_table(comparison),
        tables.make_curves_table(comparison),
        tables.make_seconds_table(comparison),
    ]


def make_page(
    comparison: Comparison,
    costs: Sequence[MethodCost] = (),
    *,
    title: str,
    notes: Sequence[str] = (),
    pictures: Sequence[str] = (),
) -> str:
    """Return the page as Markdown.

    Args:
        comparison: The cells.
        costs: What scoring with each method takes.
        title: Of the page.
        notes: Paragraphs behind the title.
        pictures: Names of picture files that lie beside the page.
    """
    blocks = [f"# {title}", *notes, *_describe_cells(comparison)]
    if comparison.n_used:
        blocks += _error_blocks(comparison)
        if "ratios.png" in pictures:
            blocks.append(f"![{_PICTURES['ratios']}](ratios.png) Small dots are the pairs.")
        blocks += _pool_blocks(comparison)
        blocks += _split_blocks(comparison)
        blocks += _gain_blocks(comparison)
        blocks += _scratch_blocks(comparison)
    blocks += [*_cost_blocks(comparison, costs), *_picture_blocks(comparison, pictures)]
    blocks += _committee_blocks(comparison)
    return "\n\n".join(blocks) + "\n"


def make_record(
    comparison: Comparison, made: Sequence[Table], *, title: str, notes: Sequence[str]
) -> str:
    """Return all cells and the short tables as JSON; null for what is not known."""
    long = {"curves", "rounds_seconds", "committees"}
    record = {
        "title": title,
        "notes": list(notes),
        "reference": comparison.reference,
        "energy_errors": comparison.energy_errors,
        "confidence": CONFIDENCE,
        "n_used": comparison.n_used,
        "n_planned": comparison.n_planned,
        "unfinished": comparison.unfinished,
        "missing": comparison.missing,
        "odd": comparison.odd,
        "not_finite": tables.list_unknown(comparison),
        "tables": {table.name: table.as_records() for table in made if table.name not in long},
        "cells": [_plain_cell(cell) for cell in comparison.cells],
    }
    return json.dumps(_without_nan(record), indent=1, ensure_ascii=False) + "\n"


def _describe_cells(comparison: Comparison) -> Iterator[str]:
    n_pools, n_places = len(comparison.pools), len(comparison.places)
    yield (
        f"{comparison.n_used} of {comparison.n_planned} campaigns are in the tables: "
        f"{len(comparison.series)} methods, {n_pools} pools, {n_places} pairs of pool and seed. "
        f"Errors are those of the test set, in {unit_of(comparison.errors[0])} and meV/Å."
    )
    yield from wording.list_warnings(comparison)


def _error_blocks(comparison: Comparison) -> Iterator[str]:
    names = _name_columns(comparison)
    yield "## Errors"
    yield (
        f"{wording.ERRORS} ±: {wording.describe_spread(comparison)} Bold: lowest of the methods "
        "that have all pools and seeds."
    )
    lines = []
    for series in comparison.series:
        means = [estimate_mean(series.values(q, error)) for q, error, _ in comparison.shown]
        lines.append((series, means))
    best = [tables.find_best(comparison, q, error) for q, error, _ in comparison.shown]
    rows = [
        [series.label, str(len(series.cells))]
        + [
            f"**{format_mean(each)}**" if series is lowest else format_mean(each)
            for each, lowest in zip(means, best, strict=True)
        ]
        for series, means in lines
    ]
    yield make_table(["method", "cells", *names], rows)
    yield f"### Ratio to {comparison.reference}"
    yield wording.describe_interval(comparison)
    rows = []
    for series in comparison.series:
        ratios = [tables.ratio_of(comparison, series, q, error) for q, error, _ in comparison.shown]
        if series is not comparison.find_reference(series):
            rows.append([series.label, str(ratios[0].n_cells), *map(format_ratio, ratios)])
    yield make_table(["method", "pairs", *(name for *_, name in comparison.shown)], rows)


def _pool_blocks(comparison: Comparison) -> Iterator[str]:
    others = tables.list_others(comparison)
    if len(comparison.pools) < 2 or not others:
        return
    yield "### By pool"
    yield (
        f"Ratio of AUC E and AUC F to {comparison.reference}, averaged over seeds; with intervals, "
        "and the other quantities: `errors_by_pool.csv`."
    )
    rows = []
    for series in others:
        parts = [series.in_pool(pool) for pool in comparison.pools]
        pairs = [
            [
                tables.ratio_of(comparison, part, q, error).value
                for q, error, _ in comparison.shown[:2]
            ]
            for part in parts
        ]
        rows.append([series.label, *(_format_two(*pair) for pair in pairs)])
    yield make_table(["method", *comparison.pools], rows)


def _split_blocks(comparison: Comparison) -> Iterator[str]:
    if not comparison.splits:
        return
    yield "## By split of the test sets"
    yield (
        f"±: {wording.describe_spread(comparison)} In brackets the paired ratio to "
        f"{comparison.reference} on the same split; with intervals, and the other quantities: "
        "`errors_by_split.csv`."
    )
    for split in comparison.splits:
        part = comparison.in_split(split)
        rows = [
            [series.label, str(len(series.cells)), *_list_with_ratios(part, series)]
            for series in part.series
            if series.cells
        ]
        yield f"### Split {split}"
        yield make_table(["method", "cells", *_name_columns(comparison)], rows)


def _name_columns(comparison: Comparison) -> list[str]:
    return [f"{name}, {unit_of(error)}" for _, error, name in comparison.shown]


def _format_two(first: float, second: float) -> str:
    shown = ["–" if math.isnan(value) else f"{value:.2f}" for value in (first, second)]
    return "" if shown == ["–", "–"] else " / ".join(shown)


def _gain_blocks(comparison: Comparison) -> Iterator[str]:
    rows = []
    for series in tables.list_others(comparison):
        gains = [estimate_mean(tables.gains_of(comparison, series, e)) for e in comparison.errors]
        rows.append([series.label, str(gains[0].n_cells), *map(format_gain, gains)])
    if not rows:
        return
    yield f"## Round gain over {comparison.reference}"
    yield (f"{wording.GAINS} ±: {wording.describe_spread(comparison)} By pool: `round_gain.csv`.")
    yield make_table(["method", "pairs", *SHOWN_GAINS], rows)


def _scratch_blocks(comparison: Comparison) -> Iterator[str]:
    rows = []
    for pair in tables.list_scratch_pairs(comparison):
        for series in pair:
            cells = _list_with_ratios(comparison, series)
            rows.append([series.kernel, series.start, str(len(series.cells)), *cells])
    if not rows:
        return
    yield "## From scratch and pretrained"
    yield (
        f"Means as above; in brackets the paired ratio to {comparison.reference} of the same start."
    )
    yield make_table(["method", "start", "cells", *_name_columns(comparison)], rows)


def _cost_blocks(comparison: Comparison, costs: Sequence[MethodCost]) -> Iterator[str]:
    table = tables.make_cost_table(comparison, costs)
    if not table.rows:
        return
    stages = tables.list_stages(comparison)
    names = ["method", "forward", "backward", "models", "dim", "ms/structure", "features, MiB"]
    names += [*(f"{stage}, s" for stage in stages), "round, s", "peak, MiB"]
    yield "## Cost"
    yield wording.COSTS
    columns = [name for name in table.columns if name not in {"method", "start"}]
    rows = [
        [_label_of(record), *(format_cost(record[name]) for name in columns)]
        for record in table.as_records()
    ]
    yield make_table(names, rows)


def _label_of(record: dict[str, Any]) -> str:
    return Series(record["method"], record["start"] or "pretrained", {}).label


def _picture_blocks(comparison: Comparison, pictures: Sequence[str]) -> Iterator[str]:
    shown = [name for name in pictures if name.startswith("curves") and name.endswith(".png")]
    if shown:
        yield "## Learning curves"
        yield (
            "Lines are means, bands one standard error of the mean either way: over pools where "
            "several are averaged, over seeds where one pool is shown. Methods share pools, seeds "
            "and round 0, so that bands may overlap where every pair has the same winner: the "
            "ratios above are paired, the bands are not."
        )
        drawn = {curve.label for curve in list_curves(comparison, comparison.errors[0])}
        absent = [each.label for each in comparison.series if each.label not in drawn]
        if absent:
            yield (
                "Not in the mean over pools, for want of a pool or because pools have other "
                f"numbers of labels: {', '.join(absent)}."
            )
        for name in shown:
            stem = name.removesuffix(".png")
            yield f"![{_PICTURES.get(stem, 'Learning curves by pool')}]({name})"
    if "committees.png" in pictures:
        yield "## Committees"
        yield f"![{_PICTURES['committees']}](committees.png)"


def _committee_blocks(comparison: Comparison) -> Iterator[str]:
    rows = []
    for series in comparison.series:
        means = [tables.mean_correlation(series, quantity) for quantity in ("energy", "forces")]
        if any(each.n_cells for each in means):
            rows.append([series.label, *(format_pair(each, ".2f") for each in means)])
    if rows:
        yield f"{wording.COMMITTEES} ±: {wording.describe_spread(comparison)}"
        yield make_table(["method", "energy", "forces"], rows)


def _list_with_ratios(comparison: Comparison, series: Series) -> list[str]:
    return [_format_with_ratio(comparison, series, q, error) for q, error, _ in comparison.shown]


def _format_with_ratio(comparison: Comparison, series: Series, quantity: str, error: str) -> str:
    mean = format_mean(estimate_mean(series.values(quantity, error)))
    ratio = tables.ratio_of(comparison, series, quantity, error).value
    return mean if math.isnan(ratio) or not mean else f"{mean} ({ratio:.2f})"


def _plain_cell(cell: CellResult) -> dict[str, Any]:
    """Return a cell as plain data; its mappings may be of any kind."""
    costs = [{"seconds": dict(c.seconds), "peak_mib": dict(c.peak_mib)} for c in cell.costs]
    return {
        **asdict(cell.key),
        "start": cell.start,
        "n_models": cell.n_models,
        "is_finished": cell.is_finished,
        "n_labels": cell.n_labels,
        "curves": dict(cell.curves),
        "splits": {name: dict(curves) for name, curves in cell.splits.items()},
        "rank_correlations": dict(cell.rank_correlations),
        "costs": costs,
    }


def _without_nan(value: Any) -> Any:
    """Return plain data with None for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _remove_stale(folder: Path, *, kept: set[str]) -> None:
    """Remove what an earlier report left here and this one does not have."""
    tables_made = make_tables(compare_cells(()), ())
    names = {f"{table.name}.csv" for table in tables_made}
    names |= {f"{name}.{suffix}" for name in _PICTURES for suffix in ("png", "svg")}
    for name in names - kept:
        (folder / name).unlink(missing_ok=True)
