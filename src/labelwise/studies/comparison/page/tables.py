"""The tables of a comparison, with numbers that can be sorted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from labelwise.pages.document import Cell, Table, TableColumn
from labelwise.studies.comparison.results import MethodCost, unit_of
from labelwise.studies.comparison.series import Comparison, Series
from labelwise.studies.comparison.statistics import (
    Estimate,
    Place,
    estimate_mean,
    estimate_ratio,
)
from labelwise.studies.comparison.tables import (
    SHOWN_GAINS,
    gains_of,
    list_others,
    list_scratch_pairs,
    list_stages,
    make_cost_table,
    mean_correlation,
    ratio_of,
)
from labelwise.studies.comparison.wording import (
    COMMITTEES,
    COSTS,
    ERRORS,
    GAINS,
    describe_interval,
    describe_spread,
)

_MEAN_DIGITS, _SPREAD_DIGITS, _COST_DIGITS = 4, 2, 3
_COUNTS = frozenset({"n_forward", "n_backward", "n_models", "dim"})
_COST_NAMES = {
    "n_forward": "forward passes",
    "n_backward": "backward passes",
    "n_models": "models",
    "dim": "row length",
    "processor_ms_per_structure": "represent / ms per structure",
    "feature_mib": "rows / MiB",
    "round_seconds": "round / s",
    "peak_mib": "peak memory / MiB",
}


def list_tables(comparison: Comparison, costs: Sequence[MethodCost]) -> list[Table]:
    """Return the tables that hold for the whole study, those without rows left out.

    Args:
        comparison: The campaigns.
        costs: What scoring with each method takes.
    """
    made = (
        make_errors_table(comparison),
        make_ratios_table(comparison),
        make_gains_table(comparison),
        make_scratch_table(comparison),
        make_cost_table_of(comparison, costs),
        make_committees_table(comparison),
    )
    return [drop_unknown(table) for table in made if table.rows]


def drop_unknown(table: Table) -> Table:
    """Return a table without the columns of which nothing is known."""
    kept = [
        place
        for place in range(len(table.columns))
        if any(row[place] is not None for row in table.rows)
    ]
    return replace(
        table,
        columns=tuple(table.columns[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in table.rows),
    )


def make_errors_table(comparison: Comparison) -> Table:
    """Return sums over rounds and last errors of each method, in the units of its columns."""
    rows = [
        (each.label, len(each.cells), *_means_of(comparison, each)) for each in comparison.series
    ]
    return Table(
        name="errors",
        title="Errors on the test set",
        columns=(TableColumn("method"), TableColumn("campaigns"), *_mean_columns(comparison)),
        rows=tuple(row for row in rows if row[1]),
        caption=f"{ERRORS} ±: {describe_spread(comparison)}",
    )


def make_ratios_table(comparison: Comparison) -> Table:
    """Return the paired ratio of each method to the reference, with its interval."""
    rows = []
    for each in list_others(comparison):
        ratios = _ratios_of(comparison, each)
        if any(math.isfinite(ratio.value) for ratio in ratios):
            rows.append((each.label, ratios[0].n_cells, *_flatten(map(_list_interval, ratios))))
    columns = [TableColumn("method"), TableColumn("pairs")]
    for *_, name in comparison.shown:
        columns += [TableColumn(name, 3), TableColumn("low", 3), TableColumn("high", 3)]
    return Table(
        name="ratios",
        title=f"Ratio to {comparison.reference}",
        columns=tuple(columns),
        rows=tuple(rows),
        caption=f"{describe_interval(comparison)} Below 1 the method is better.",
    )


def make_pools_table(comparison: Comparison) -> Table:
    """Return errors and ratios of each method in each pool, averaged over seeds."""
    rows = [
        (pool, *_both_of(comparison, part))
        for pool in comparison.pools
        for series in comparison.series
        if (part := series.in_pool(pool)).cells
    ]
    return _make_part_table(
        comparison, "pool", rows, name="errors-by-pool", caption="±: standard error over seeds."
    )


def make_splits_table(comparison: Comparison) -> Table:
    """Return errors and ratios of each method on each split of the test sets."""
    rows = [
        (split, *_both_of(part, series))
        for split in comparison.splits
        for part in (comparison.in_split(split),)
        for series in part.series
        if series.cells
    ]
    spread = describe_spread(comparison)
    return _make_part_table(
        comparison, "split", rows, name="errors-by-split", caption=f"±: {spread}"
    )


def _make_part_table(
    comparison: Comparison,
    part: str,
    rows: Sequence[tuple[Cell, ...]],
    *,
    name: str,
    caption: str,
) -> Table:
    columns = [TableColumn(part), TableColumn("method"), TableColumn("campaigns")]
    for _, error, label in comparison.shown:
        columns += [TableColumn(f"{label} / {unit_of(error)}", _MEAN_DIGITS)]
        columns += [TableColumn("±", _SPREAD_DIGITS), TableColumn("ratio", 3)]
    return Table(
        name=name,
        title=f"Errors by {part}",
        columns=tuple(columns),
        rows=tuple(rows),
        caption=(
            f"RMSE. {caption} Ratio: paired, to {comparison.reference} on the same {part}; with "
            f"intervals and MAE: {name.replace('-', '_')}.csv."
        ),
    )


def make_gains_table(comparison: Comparison) -> Table:
    """Return which part of the rounds each method saves, in per cent."""
    rows = []
    for each in list_others(comparison):
        gains = [estimate_mean(gains_of(comparison, each, error)) for error in comparison.errors]
        if any(math.isfinite(gain.value) for gain in gains):
            rows.append((each.label, gains[0].n_cells, *_flatten(map(_list_percent, gains))))
    columns = [TableColumn("method"), TableColumn("pairs")]
    for name in SHOWN_GAINS:
        columns += [TableColumn(f"{name} / %", 3), TableColumn("±", _SPREAD_DIGITS)]
    return Table(
        name="round-gain",
        title=f"Rounds saved against {comparison.reference}",
        columns=tuple(columns),
        rows=tuple(rows),
        caption=f"{GAINS} ±: {describe_spread(comparison)}",
    )


def make_scratch_table(comparison: Comparison) -> Table:
    """Return the methods that ran both from scratch and from the pretrained model."""
    rows = [
        (each.kernel, each.start, len(each.cells), *_means_of(comparison, each))
        for pair in list_scratch_pairs(comparison)
        for each in pair
    ]
    head = (TableColumn("method"), TableColumn("start"), TableColumn("campaigns"))
    return Table(
        name="scratch",
        title="From scratch and pretrained",
        columns=(*head, *_mean_columns(comparison)),
        rows=tuple(rows),
        caption=f"Errors as above. ±: {describe_spread(comparison)}",
    )


def make_cost_table_of(comparison: Comparison, costs: Sequence[MethodCost]) -> Table:
    """Return what scoring and a round take with each method, as measured."""
    source = make_cost_table(comparison, costs)
    stages = {f"{stage}_seconds": f"{stage} / s" for stage in list_stages(comparison)}
    names = {**_COST_NAMES, **stages}
    shown = [column for column in source.columns if column in names]
    rows = tuple(
        (
            Series(str(record["method"]), str(record["start"] or "pretrained"), {}).label,
            *(_count(record[c]) if c in _COUNTS else record[c] for c in shown),
        )
        for record in source.as_records()
    )
    return Table(
        name="cost",
        title="Cost",
        columns=(
            TableColumn("method"),
            *(TableColumn(names[c], None if c in _COUNTS else _COST_DIGITS) for c in shown),
        ),
        rows=rows,
        caption=COSTS,
    )


def make_committees_table(comparison: Comparison) -> Table:
    """Return the mean rank correlation of each committee's deviation with the true error."""
    rows = []
    for each in comparison.series:
        means = [mean_correlation(each, quantity) for quantity in ("energy", "forces")]
        if any(mean.n_cells for mean in means):
            rows.append((each.label, *_flatten(map(_list_mean, means))))
    return Table(
        name="committees",
        title="Committees: deviation against true error",
        columns=(
            TableColumn("method"),
            *(TableColumn("ρ, energy", 2), TableColumn("±", 1)),
            *(TableColumn("ρ, forces", 2), TableColumn("±", 1)),
        ),
        rows=tuple(rows),
        caption=f"{COMMITTEES} ±: {describe_spread(comparison)}",
    )


def _means_of(comparison: Comparison, series: Series) -> Iterator[Cell]:
    for quantity, error, _ in comparison.shown:
        yield from _list_mean(estimate_mean(series.values(quantity, error)))


def _ratios_of(comparison: Comparison, series: Series) -> list[Estimate]:
    return [
        ratio_of(comparison, series, quantity, error) for quantity, error, _ in comparison.shown
    ]


def _both_of(comparison: Comparison, series: Series) -> Iterator[Cell]:
    """Yield a method's name, campaigns, and mean, spread and ratio of what is shown."""
    yield series.label
    yield len(series.cells)
    for quantity, error, _ in comparison.shown:
        values = series.values(quantity, error)
        yield from _list_mean(estimate_mean(values))
        reference = _reference_values(comparison, series, quantity, error)
        yield _known(estimate_ratio(values, reference).value)


def _reference_values(
    comparison: Comparison, series: Series, quantity: str, error: str
) -> dict[Place, float]:
    reference = comparison.find_reference(series)
    return {} if reference is None else reference.values(quantity, error)


def _mean_columns(comparison: Comparison) -> Iterator[TableColumn]:
    for _, error, name in comparison.shown:
        yield TableColumn(f"{name} / {unit_of(error)}", _MEAN_DIGITS)
        yield TableColumn("±", _SPREAD_DIGITS)


def _list_mean(mean: Estimate) -> tuple[Cell, ...]:
    return _known(mean.value), _known(mean.spread.standard_error)


def _list_interval(ratio: Estimate) -> tuple[Cell, ...]:
    return _known(ratio.value), _known(ratio.spread.low), _known(ratio.spread.high)


def _list_percent(gain: Estimate) -> tuple[Cell, ...]:
    return _known(100.0 * gain.value), _known(100.0 * gain.spread.standard_error)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _flatten(parts: Iterable[tuple[Cell, ...]]) -> Iterator[Cell]:
    for part in parts:
        yield from part


def _count(value: Cell) -> Cell:
    """Return a number of passes as a whole number if it is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
