"""The tables of a comparison: errors, gains, costs, scratch against pretrained."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from labelwise.finetuning.metrics import round_gain
from labelwise.studies.comparison.results import CellResult, MethodCost
from labelwise.studies.comparison.series import (
    QUANTITIES,
    Comparison,
    Series,
    describe_place,
    place_of,
)
from labelwise.studies.comparison.statistics import (
    Estimate,
    Place,
    estimate_mean,
    estimate_ratio,
)

Value = str | int | float | None

_ALL_POOLS = "all"


@dataclass(frozen=True)
class Table:
    """A table with all digits, for CSV and JSON.

    Attributes:
        name: Of its file, without suffix.
        columns: Names of the columns, with units where there are any.
        rows: Values; None and NaN are written as nothing.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    def as_csv(self) -> str:
        """Return it as CSV with all digits; what is not known is left empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if _is_unknown(v) else v for v in row] for row in self.rows])
        return text.getvalue()

    def as_records(self) -> list[dict[str, Value]]:
        """Return its rows as dictionaries for JSON, None for what is not known."""
        return [
            {c: None if _is_unknown(v) else v for c, v in zip(self.columns, row, strict=True)}
            for row in self.rows
        ]


def make_errors_table(comparison: Comparison) -> Table:
    """Make the paper's table 4: sums over rounds and last errors, and their ratio to the reference.

    One row a method; ``mean`` columns are meV, meV/atom (``per_atom``), meV/Å and
    meV/Å³, ``ratio`` columns dimensionless and paired by pool and seed.
    """
    rows = [_errors_row(comparison, series) for series in comparison.series]
    return Table("errors", _name_errors(comparison), tuple(rows))


def make_pools_table(comparison: Comparison) -> Table:
    """Make Table 4 for each pool on its own, with spreads over seeds."""
    rows = [
        (pool, *_errors_row(comparison, series.in_pool(pool)))
        for pool in comparison.pools
        for series in comparison.series
        if series.in_pool(pool).cells
    ]
    return Table("errors_by_pool", ("pool", *_name_errors(comparison)), tuple(rows))


def make_splits_table(comparison: Comparison) -> Table:
    """Make Table 4 for each split of the test sets, over all pools that have the split."""
    parts = [(split, comparison.in_split(split)) for split in comparison.splits]
    rows = [
        (split, *_errors_row(part, series))
        for split, part in parts
        for series in part.series
        if series.cells
    ]
    return Table("errors_by_split", ("split", *_name_errors(comparison)), tuple(rows))


def _name_errors(comparison: Comparison) -> tuple[str, ...]:
    columns = ["method", "start", "n_pools", "n_cells", "n_pairs", "spread_over"]
    for quantity in QUANTITIES:
        for error in comparison.errors:
            name = f"{quantity}_{error}"
            columns += [f"{name}_mean", f"{name}_se", f"{name}_se_over_cells"]
            columns += [f"{name}_ratio", f"{name}_ratio_low", f"{name}_ratio_high"]
            columns += [f"{name}_ratio_low_over_cells", f"{name}_ratio_high_over_cells"]
    return tuple(columns)


def _errors_row(comparison: Comparison, series: Series) -> tuple[Value, ...]:
    numbers: list[Value] = []
    for quantity in QUANTITIES:
        for error in comparison.errors:
            mean = estimate_mean(series.values(quantity, error))
            ratio = ratio_of(comparison, series, quantity, error)
            numbers += [mean.value, mean.spread.standard_error, mean.cell_spread.standard_error]
            numbers += [ratio.value, ratio.spread.low, ratio.spread.high]
            numbers += [ratio.cell_spread.low, ratio.cell_spread.high]
    first = comparison.errors[0]
    count = estimate_mean(series.values("final", first))
    n_pairs = ratio_of(comparison, series, "final", first).n_cells
    head = (series.method, series.start, count.n_pools, count.n_cells, n_pairs, count.unit)
    return (*head, *numbers)


def ratio_of(comparison: Comparison, series: Series, quantity: str, error: str) -> Estimate:
    """Return the paired ratio of a series to its reference; NaN without pairs."""
    reference = comparison.find_reference(series)
    values = {} if reference is None else reference.values(quantity, error)
    return estimate_ratio(series.values(quantity, error), values)


def make_gain_table(comparison: Comparison) -> Table:
    """Make the paper's table 3: which part of the rounds a method saves, by pool and over all.

    One row for each method, error and pool; dimensionless, positive where the method is
    earlier. Round 0, which is common to all, is left out and round 1 counts as the first.
    """
    columns = ("method", "start", "error", "pool", "gain_mean", "gain_se", "gain_se_over_cells")
    rows: list[tuple[Value, ...]] = []
    for series in comparison.series:
        if series is comparison.find_reference(series):
            continue
        for error in comparison.errors:
            gains = gains_of(comparison, series, error)
            for pool in (*comparison.pools, _ALL_POOLS):
                part = {p: gain for p, gain in gains.items() if pool in {p[0], _ALL_POOLS}}
                mean = estimate_mean(part)
                spreads = (mean.spread.standard_error, mean.cell_spread.standard_error)
                rows.append(
                    (series.method, series.start, error, pool, mean.value, *spreads, mean.n_cells)
                )
    return Table("round_gain", (*columns, "n_pairs"), tuple(rows))


def gains_of(comparison: Comparison, series: Series, error: str) -> dict[Place, float]:
    """Return the round gain over the reference wherever both ran; NaN where it is not known."""
    reference = comparison.find_reference(series)
    if reference is None:
        return {}
    return {
        place: _gain(cell, reference.cells[place], error)
        for place, cell in series.asked(error).items()
        if place in reference.asked(error)
    }


def _gain(cell: CellResult, reference: CellResult, error: str) -> float:
    curves = [np.array(each.curves.get(error, ())[1:]) for each in (cell, reference)]
    if not all(len(curve) and np.isfinite(curve).all() for curve in curves):
        return math.nan
    return round_gain(*curves)


def make_scratch_table(comparison: Comparison) -> Table:
    """Make the paper's table 6: the same method from scratch and from the pretrained model.

    Two rows a method that ran both ways, with ratios to the reference of the same start, and
    the paired ratio of scratch to pretrained in the row of scratch. No rows if none did.
    """
    columns = ["kernel", "start", "n_cells"]
    for quantity, error, _ in comparison.shown:
        name = f"{quantity}_{error}"
        columns += [f"{name}_mean", f"{name}_se", f"{name}_ratio", f"{name}_ratio_low"]
        columns += [f"{name}_ratio_high", f"{name}_over_pretrained"]
    rows = [
        _scratch_row(comparison, series, other)
        for scratch, pretrained in list_scratch_pairs(comparison)
        for series, other in ((scratch, pretrained), (pretrained, None))
    ]
    return Table("scratch", tuple(columns), tuple(rows))


def list_scratch_pairs(comparison: Comparison) -> list[tuple[Series, Series]]:
    """Return the methods that ran both from scratch and pretrained, as such pairs."""
    return [
        (scratch, pretrained)
        for scratch in comparison.series
        for pretrained in comparison.series
        if scratch.start == "scratch"
        and pretrained.start == "pretrained"
        and scratch.kernel == pretrained.kernel
    ]


def _scratch_row(
    comparison: Comparison, series: Series, pretrained: Series | None
) -> tuple[Value, ...]:
    row: list[Value] = [series.kernel, series.start, len(series.cells)]
    for quantity, error, _ in comparison.shown:
        values = series.values(quantity, error)
        mean = estimate_mean(values)
        ratio = ratio_of(comparison, series, quantity, error)
        others = {} if pretrained is None else pretrained.values(quantity, error)
        row += [mean.value, mean.spread.standard_error, ratio.value]
        row += [ratio.spread.low, ratio.spread.high, estimate_ratio(values, others).value]
    return tuple(row)


def make_cost_table(comparison: Comparison, costs: Sequence[MethodCost]) -> Table:
    """Make the paper's table 5, with seconds and memory as measured in place of words.

    Seconds are wall time a round, averaged over the rounds of all finished campaigns that had
    the stage; the peak is the largest of all.
    """
    known = {cost.method: cost for cost in costs}
    stages = list_stages(comparison)
    columns = ["method", "start", "n_forward", "n_backward", "n_models", "dim"]
    columns += ["processor_ms_per_structure", "feature_mib", *(f"{s}_seconds" for s in stages)]
    columns += ["round_seconds", "peak_mib"]
    rows = [
        _cost_row(series.method, series, known.get(series.method), stages)
        for series in comparison.series
    ]
    ran = {series.method for series in comparison.series}
    rows += [_cost_row(c.method, None, c, stages) for c in costs if c.method not in ran]
    return Table("cost", tuple(columns), tuple(rows))


def list_stages(comparison: Comparison) -> tuple[str, ...]:
    """Return the stages that any finished campaign measured, in the order of a round."""
    order = ("select", "label", "finetune", "measure")
    seen = {
        stage
        for series in comparison.series
        for cell in series.cells.values()
        for cost in cell.costs
        for stage in cost.seconds
    }
    return (*(s for s in order if s in seen), *sorted(seen - set(order)))


def _cost_row(
    method: str, series: Series | None, cost: MethodCost | None, stages: Sequence[str]
) -> tuple[Value, ...]:
    cells = [] if series is None else list(series.cells.values())
    rounds = [each for cell in cells for each in cell.costs]
    seconds = [_mean(r.seconds[stage] for r in rounds if stage in r.seconds) for stage in stages]
    peak = max((mib for r in rounds for mib in r.peak_mib.values()), default=math.nan)
    total = _mean(sum(r.seconds.values()) for r in rounds)
    n_models = max((cell.n_models for cell in cells), default=None)
    head: tuple[Value, ...] = (method, None if series is None else series.start)
    if cost is None:
        return (*head, None, None, n_models, None, None, None, *seconds, total, peak)
    passes = (cost.n_forward, cost.n_backward, max(cost.n_models, n_models or 0))
    size = (cost.dim or None, cost.seconds_per_structure * 1e3, cost.feature_mib)
    return (*head, *passes, *size, *seconds, total, peak)


def make_curves_table(comparison: Comparison) -> Table:
    """Make the long table of all learning curves, unfinished campaigns among them."""
    columns = ("pool", "method", "start", "seed", "is_finished", "round", "n_labels")
    rows = [
        (*_cell_head(cell), i, n_labels, error, cell.curves[error][i])
        for cell in comparison.cells
        for error in cell.curves
        for i, n_labels in enumerate(cell.n_labels[: len(cell.curves[error])])
    ]
    return Table("curves", (*columns, "error", "value"), tuple(rows))


def make_seconds_table(comparison: Comparison) -> Table:
    """Make the long table of what each stage of each round took."""
    columns = ("pool", "method", "start", "seed", "is_finished", "round", "stage", "seconds")
    rows = [
        (*_cell_head(cell), i, stage, seconds, cost.peak_mib.get(stage))
        for cell in comparison.cells
        for i, cost in enumerate(cell.costs)
        for stage, seconds in cost.seconds.items()
    ]
    return Table("rounds_seconds", (*columns, "peak_mib"), tuple(rows))


def make_committees_table(comparison: Comparison) -> Table:
    """Make the long table of rank correlations of deviation and true error, round by round."""
    columns = ("pool", "method", "start", "seed", "is_finished", "round", "quantity", "spearman")
    rows = [
        (*_cell_head(cell), i, quantity, value)
        for cell in comparison.cells
        for quantity, values in cell.rank_correlations.items()
        for i, value in enumerate(values, start=1)
    ]
    return Table("committees", columns, tuple(rows))


def list_others(comparison: Comparison) -> list[Series]:
    """Return the methods that are held against the reference."""
    return [each for each in comparison.series if each is not comparison.find_reference(each)]


def mean_correlation(series: Series, quantity: str) -> Estimate:
    """Return a committee's rank correlation, averaged over rounds, then over pools and seeds."""
    means: dict[Place, float] = {}
    for place, cell in series.cells.items():
        known = [v for v in cell.rank_correlations.get(quantity, ()) if math.isfinite(v)]
        if known:
            means[place] = sum(known) / len(known)
    return estimate_mean(means)


def find_best(comparison: Comparison, quantity: str, error: str) -> Series | None:
    """Return the method of the lowest mean, of those that have all pools and seeds.

    None unless there are two such methods at least.
    """
    complete = [
        (mean.value, place)
        for place, each in enumerate(comparison.series)
        if len(each.cells) == len(comparison.places)
        and math.isfinite((mean := estimate_mean(each.values(quantity, error))).value)
    ]
    return comparison.series[min(complete)[1]] if len(complete) > 1 else None


def list_unknown(comparison: Comparison) -> list[str]:
    """Name the used cells whose curves hold a value that is not finite."""
    return [
        f"{series.label}, {describe_place(*place_of(cell))}"
        for series in comparison.series
        for cell in series.cells.values()
        if any(
            len(cell.curves.get(error, ())) != len(cell.n_labels)
            or not all(map(math.isfinite, cell.curves[error]))
            for error in comparison.errors
            if cell.is_asked(error)
        )
    ]


def _cell_head(cell: CellResult) -> tuple[Value, ...]:
    key = cell.key
    return key.pool, key.method, cell.start, key.seed, str(cell.is_finished).lower()


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan


def _is_unknown(value: Value) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
