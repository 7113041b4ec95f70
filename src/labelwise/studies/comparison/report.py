"""A comparison as a page, tables for other programs, and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from labelwise.errors import MissingDependencyError
from labelwise.runtime.files import write_bytes, write_text
from labelwise.studies.comparison import shown, tables, wording
from labelwise.studies.comparison.curves import draw_pictures, list_curves, render
from labelwise.studies.comparison.ratio_picture import draw_ratios
from labelwise.studies.comparison.record import RECORD, StudyRecord, write_record
from labelwise.studies.comparison.results import CellKey, CellResult, MethodCost, unit_of
from labelwise.studies.comparison.series import Comparison, compare_cells
from labelwise.studies.comparison.statistics import Estimate
from labelwise.studies.comparison.tables import Table

PAGE = "results.md"
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
    record = StudyRecord(folder, title, tuple(notes), comparison, tuple(costs))
    texts = {
        PAGE: make_page(comparison, costs, title=title, notes=notes, pictures=tuple(pictures)),
        **{f"{table.name}.csv": table.as_csv() for table in made},
        RECORD: write_record(record, made),
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
    """Return the page as Markdown, with those of the pictures that lie beside it."""
    blocks = [f"# {title}", *notes, *_describe_cells(comparison)]
    if comparison.n_used:
        blocks += _error_blocks(comparison)
        if "ratios.png" in pictures:
            blocks.append(f"![{_PICTURES['ratios']}](ratios.png) Small dots are the pairs.")
        blocks += _pool_blocks(comparison)
        blocks += _split_blocks(comparison)
        blocks += _show(shown.make_gains(comparison), "##")
        blocks += _show(shown.make_scratch(comparison), "##")
    blocks += _show(shown.make_costs(comparison, costs), "##")
    blocks += _picture_blocks(comparison, pictures)
    blocks += _show(shown.make_committees(comparison), "##")
    return "\n\n".join(blocks) + "\n"


def _describe_cells(comparison: Comparison) -> Iterator[str]:
    n_pools, n_places = len(comparison.pools), len(comparison.places)
    units = [unit_of(error) for _, error, _ in comparison.areas]
    yield (
        f"{comparison.n_used} of {comparison.n_planned} campaigns are in the tables: "
        f"{len(comparison.series)} methods, {n_pools} pools, {n_places} pairs of pool and seed. "
        f"Errors are those of the test set, in {', '.join(units[:-1])} and {units[-1]}."
    )
    yield from wording.list_warnings(comparison)


def _error_blocks(comparison: Comparison) -> Iterator[str]:
    errors = shown.make_errors(comparison)
    best = [tables.find_best(comparison, q, error) for q, error, _ in comparison.shown]
    bold = [
        (comparison.series.index(series), column)
        for column, series in enumerate(best, start=2)
        if series is not None
    ]
    yield f"## {errors.title}"
    yield f"{errors.caption} Bold: lowest of the methods that have all pools and seeds."
    yield errors.as_markdown(bold=bold)
    yield from _show(shown.make_ratios(comparison), "###")


def _show(table: shown.Shown, level: str) -> Iterator[str]:
    if table.rows or level == "###":
        yield f"{level} {table.title}"
        yield table.caption
        yield table.as_markdown()


def _pool_blocks(comparison: Comparison) -> Iterator[str]:
    others = [series.label for series in tables.list_others(comparison)]
    if len(comparison.pools) < 2 or not others:
        return
    names = [name for *_, name in comparison.areas]
    yield "### By pool"
    yield (
        f"Ratio of {', '.join(names[:-1])} and {names[-1]} to {comparison.reference}, averaged "
        "over seeds; with intervals, and the other quantities: `errors_by_pool.csv`."
    )
    ratios = slice(4, 4 + 2 * len(names), 2)
    found = {(row[0], row[1]): row[ratios] for row in shown.make_pools(comparison).rows}
    rows = [
        [label, *(_format_ratios(found.get((pool, label))) for pool in comparison.pools)]
        for label in others
    ]
    yield shown.write_markdown(["method", *comparison.pools], rows)


def _format_ratios(ratios: tuple[shown.Value, ...] | None) -> str:
    values = [each.value for each in ratios or () if isinstance(each, Estimate)]
    texts = ["–" if math.isnan(value) else f"{value:.2f}" for value in values]
    return "" if {*texts} <= {"–"} else " / ".join(texts)


def _split_blocks(comparison: Comparison) -> Iterator[str]:
    if not comparison.splits:
        return
    table = shown.make_splits(comparison)
    yield "## By split of the test sets"
    yield table.caption
    for split in comparison.splits:
        yield f"### Split {split}"
        yield table.part(split).as_markdown()


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
        yield f"![{_PICTURES['committees']}](committees.png)"


def _remove_stale(folder: Path, *, kept: set[str]) -> None:
    """Remove what an earlier report left here and this one does not have."""
    tables_made = make_tables(compare_cells(()), ())
    names = {f"{table.name}.csv" for table in tables_made}
    names |= {f"{name}.{suffix}" for name in _PICTURES for suffix in ("png", "svg")}
    for name in names - kept:
        (folder / name).unlink(missing_ok=True)
