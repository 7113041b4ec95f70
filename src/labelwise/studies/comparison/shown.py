"""The tables of a comparison as people read them: made once, drawn in results.md and on the page.

Their cells are estimates. The page shows mean and spread as numbers in columns of their own, which
can be sorted; Markdown shows them together, with digits by size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from labelwise.pages.document import Cell, Table, TableColumn
from labelwise.studies.comparison.results import MethodCost, unit_of
from labelwise.studies.comparison.series import Comparison, Series
from labelwise.studies.comparison.statistics import Estimate, estimate_mean
from labelwise.studies.comparison.tables import (
    gains_of,
    list_others,
    list_scratch_pairs,
    list_stages,
    make_cost_table,
    mean_correlation,
    ratio_of,
)
from labelwise.studies.comparison.wording import describe_interval, describe_spread

#: Names of what is shown of gains, in the order of ``Comparison.errors``.
_GAINS = ("E RMSE", "F RMSE", "E MAE", "F MAE", "S RMSE", "S MAE")
_ERRORS = (
    "RMSE. AUC: sum over the rounds after round 0, which is common to all methods. Final: "
    "after the last round."
)
_SAVED = (
    "Rounds saved on the way to the best error that both reach, as a part of the rounds "
    "of the later one; positive where the method is earlier."
)
_COSTS = (
    "Passes of the model a candidate, as counted; processor time to represent one structure; "
    "memory of the pool's rows; wall time of a round by stage, averaged over the rounds that have "
    "the stage; the largest resident memory."
)
_COMMITTEES = (
    "Spearman correlation of the committee's deviation with the true error over the pool, "
    "averaged over the rounds in which it is known."
)

_PAIRED = "Ratio (in results.md in brackets): paired, to"


class Kind(Enum):
    """What the cells of a column are: words, numbers, or estimates shown in some way."""

    WORD = auto()
    COUNT = auto()
    COST = auto()
    MEAN = auto()
    INTERVAL = auto()
    RATIO = auto()
    PERCENT = auto()
    CORRELATION = auto()


Value = Estimate | Cell


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: Heading, without the unit.
        kind: What its cells are.
        unit: Of its numbers; empty without one.
    """

    name: str
    kind: Kind = Kind.WORD
    unit: str = ""


@dataclass(frozen=True)
class Shown:
    """A table, drawn in several ways.

    Attributes:
        name: Letters, digits, hyphens.
        title: Heading.
        columns: What each column is; a ``RATIO`` belongs to the column before it.
        rows: Cells of each row, as many as columns; estimates where the column's kind is one.
        caption: What is seen.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    caption: str

    def part(self, value: str) -> Shown:
        """Return the rows that begin with a value, without their first column."""
        rows = tuple(row[1:] for row in self.rows if row[0] == value)
        return Shown(self.name, self.title, self.columns[1:], rows, self.caption)

    def as_panel(self) -> Table | None:
        """Return it for a page, without rows and columns of which nothing is known; or None."""
        columns = [each for column in self.columns for each in _spread_column(column)]
        numeric = [column.kind is not Kind.WORD for column in self.columns]
        rows = []
        for row in self.rows:
            cells = [_spread_cell(*pair) for pair in zip(self.columns, row, strict=True)]
            if any(is_number and any(c) for is_number, c in zip(numeric, cells, strict=True)):
                rows.append([cell for part in cells for cell in part])
        kept = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
        if not rows:
            return None
        return Table(
            name=self.name,
            title=self.title,
            columns=tuple(columns[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in rows),
            caption=self.caption,
        )

    def as_markdown(self, *, bold: Collection[tuple[int, int]] = ()) -> str:
        """Return it as a table of Markdown, the first column to the left.

        Args:
            bold: Row and column of cells to stress.
        """
        names = [
            f"{column.name}, {column.unit}" if column.unit else column.name
            for column in self.columns
            if column.kind is not Kind.RATIO
        ]
        rows = []
        for i, row in enumerate(self.rows):
            cells: list[str] = []
            for j, (column, value) in enumerate(zip(self.columns, row, strict=True)):
                text = _FORMATS[column.kind](value)
                if column.kind is not Kind.RATIO:
                    cells.append(f"**{text}**" if (i, j) in bold else text)
                elif text and cells[-1]:
                    cells[-1] += f" ({text})"
            rows.append(cells)
        return write_markdown(names, rows)


def write_markdown(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown, the first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(names) - 1)]
    lines = [names, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def make_errors(comparison: Comparison) -> Shown:
    """Return sums over rounds and last errors of each method."""
    rows: list[tuple[Value, ...]] = [
        (series.label, len(series.cells), *_means_of(comparison, series))
        for series in comparison.series
    ]
    return Shown(
        name="errors",
        title="Errors on the test set",
        columns=(Column("method"), Column("campaigns", Kind.COUNT), *_mean_columns(comparison)),
        rows=tuple(rows),
        caption=f"{_ERRORS} ±: {describe_spread(comparison)}",
    )


def make_ratios(comparison: Comparison) -> Shown:
    """Return the paired ratio of each method to the reference, with its interval."""
    rows: list[tuple[Value, ...]] = []
    for series in list_others(comparison):
        ratios = _ratios_of(comparison, series)
        rows.append((series.label, ratios[0].n_cells, *ratios))
    return Shown(
        name="ratios",
        title=f"Ratio to {comparison.reference}",
        columns=(
            *(Column("method"), Column("pairs", Kind.COUNT)),
            *(Column(name, Kind.INTERVAL) for *_, name in comparison.shown),
        ),
        rows=tuple(rows),
        caption=f"{describe_interval(comparison)} Below 1 the method is better.",
    )


def make_pools(comparison: Comparison) -> Shown:
    """Return errors and ratios of each method in each pool, averaged over seeds."""
    rows = [
        (pool, *_both_of(comparison, part))
        for pool in comparison.pools
        for series in comparison.series
        if (part := series.in_pool(pool)).cells
    ]
    return _make_part(comparison, "pool", rows, "standard error over seeds.")


def make_splits(comparison: Comparison) -> Shown:
    """Return errors and ratios of each method on each split of the test sets."""
    rows = [
        (split, *_both_of(part, series))
        for split in comparison.splits
        for part in (comparison.in_split(split),)
        for series in part.series
        if series.cells
    ]
    return _make_part(comparison, "split", rows, describe_spread(comparison))


def _make_part(
    comparison: Comparison, part: str, rows: Sequence[tuple[Value, ...]], spread: str
) -> Shown:
    return Shown(
        name=f"errors-by-{part}",
        title=f"Errors by {part}",
        columns=(Column(part), *_both_columns(comparison)),
        rows=tuple(rows),
        caption=(
            f"RMSE. ±: {spread} {_PAIRED} {comparison.reference} on the same {part}; with "
            f"intervals and MAE: errors_by_{part}.csv."
        ),
    )


def make_gains(comparison: Comparison) -> Shown:
    """Return which part of the rounds each method saves."""
    rows: list[tuple[Value, ...]] = []
    for series in list_others(comparison):
        gains = [estimate_mean(gains_of(comparison, series, e)) for e in comparison.errors]
        rows.append((series.label, gains[0].n_cells, *gains))
    return Shown(
        name="round-gain",
        title=f"Rounds saved against {comparison.reference}",
        columns=(
            *(Column("method"), Column("pairs", Kind.COUNT)),
            *(Column(name, Kind.PERCENT) for name in _GAINS[: len(comparison.errors)]),
        ),
        rows=tuple(rows),
        caption=f"{_SAVED} ±: {describe_spread(comparison)} By pool: round_gain.csv.",
    )


def make_scratch(comparison: Comparison) -> Shown:
    """Return the methods that ran both from scratch and from the pretrained model."""
    rows = []
    for pair in list_scratch_pairs(comparison):
        for series in pair:
            _, *numbers = _both_of(comparison, series)
            rows.append((series.kernel, series.start, *numbers))
    method, *others = _both_columns(comparison)
    return Shown(
        name="scratch",
        title="From scratch and pretrained",
        columns=(method, Column("start"), *others),
        rows=tuple(rows),
        caption=(
            f"Errors as above. ±: {describe_spread(comparison)} {_PAIRED} "
            f"{comparison.reference} of the same start."
        ),
    )


def make_costs(comparison: Comparison, costs: Sequence[MethodCost]) -> Shown:
    """Return what scoring and a round take with each method, as measured."""
    columns = {
        "n_forward": Column("forward passes", Kind.COUNT),
        "n_backward": Column("backward passes", Kind.COUNT),
        "n_models": Column("models", Kind.COUNT),
        "dim": Column("row length", Kind.COUNT),
        "processor_ms_per_structure": Column("represent", Kind.COST, "ms per structure"),
        "feature_mib": Column("rows", Kind.COST, "MiB"),
        **{f"{s}_seconds": Column(s, Kind.COST, "s") for s in list_stages(comparison)},
        "round_seconds": Column("round", Kind.COST, "s"),
        "peak_mib": Column("peak memory", Kind.COST, "MiB"),
    }
    rows = [
        (
            Series(str(record["method"]), str(record["start"] or "pretrained"), {}).label,
            *(record[name] for name in columns),
        )
        for record in make_cost_table(comparison, costs).as_records()
    ]
    return Shown("cost", "Cost", (Column("method"), *columns.values()), tuple(rows), _COSTS)


def make_committees(comparison: Comparison) -> Shown:
    """Return the mean rank correlation of each committee's deviation with the true error."""
    quantities = ("energy", "forces")
    rows: list[tuple[Value, ...]] = []
    for series in comparison.series:
        means = [mean_correlation(series, quantity) for quantity in quantities]
        if any(mean.n_cells for mean in means):
            rows.append((series.label, *means))
    return Shown(
        name="committees",
        title="Committees: deviation against true error",
        columns=(Column("method"), *(Column(f"ρ, {q}", Kind.CORRELATION) for q in quantities)),
        rows=tuple(rows),
        caption=f"{_COMMITTEES} ±: {describe_spread(comparison)}",
    )


def _means_of(comparison: Comparison, series: Series) -> Iterator[Estimate]:
    for quantity, error, _ in comparison.shown:
        yield estimate_mean(series.values(quantity, error))


def _ratios_of(comparison: Comparison, series: Series) -> list[Estimate]:
    return [ratio_of(comparison, series, q, error) for q, error, _ in comparison.shown]


def _both_of(comparison: Comparison, series: Series) -> Iterator[Value]:
    """Yield a method's name, campaigns, and mean and ratio of what is shown."""
    yield series.label
    yield len(series.cells)
    ratios = _ratios_of(comparison, series)
    for mean, ratio in zip(_means_of(comparison, series), ratios, strict=True):
        yield mean
        yield ratio


def _mean_columns(comparison: Comparison) -> list[Column]:
    return [Column(name, Kind.MEAN, unit_of(error)) for _, error, name in comparison.shown]


def _both_columns(comparison: Comparison) -> Iterator[Column]:
    yield Column("method")
    yield Column("campaigns", Kind.COUNT)
    for column in _mean_columns(comparison):
        yield column
        yield Column("ratio", Kind.RATIO)


def _spread_column(column: Column) -> list[TableColumn]:
    name = f"{column.name} / {column.unit}" if column.unit else column.name
    match column.kind:
        case Kind.WORD | Kind.COUNT:
            return [TableColumn(name)]
        case Kind.COST | Kind.RATIO:
            return [TableColumn(name, 3)]
        case Kind.INTERVAL:
            return [TableColumn(name, 3), TableColumn("low", 3), TableColumn("high", 3)]
        case Kind.MEAN:
            return [TableColumn(name, 4), TableColumn("±", 2)]
        case Kind.PERCENT:
            return [TableColumn(f"{name} / %", 3), TableColumn("±", 2)]
        case Kind.CORRELATION:
            return [TableColumn(name, 2), TableColumn("±", 1)]


def _spread_cell(column: Column, value: Value) -> list[Cell]:
    """Return a cell's numbers; None for what is not known."""
    if not isinstance(value, Estimate):
        is_whole = column.kind is Kind.COUNT and isinstance(value, float) and value.is_integer()
        return [int(value) if is_whole and value is not None else value]
    spread = value.spread
    if column.kind is Kind.RATIO:
        numbers = [value.value]
    elif column.kind is Kind.INTERVAL:
        numbers = [value.value, spread.low, spread.high]
    else:
        factor = 100.0 if column.kind is Kind.PERCENT else 1.0
        numbers = [factor * value.value, factor * spread.standard_error]
    return [float(number) if math.isfinite(number) else None for number in numbers]


def _format_mean(estimate: Estimate) -> str:
    """Return a mean and its standard error with digits by size."""
    value = abs(estimate.value)
    return _format_pair(estimate, ".0f" if value >= 1000 else ".1f" if value >= 10 else ".2f")


def _format_pair(estimate: Estimate, spec: str) -> str:
    error = estimate.spread.standard_error
    shown = format(estimate.value, spec)
    return shown if math.isnan(error) else f"{shown} ± {error:{spec}}"


def _format_interval(estimate: Estimate) -> str:
    spread, shown = estimate.spread, f"{estimate.value:.2f}"
    return shown if math.isnan(spread.low) else f"{shown} [{spread.low:.2f}, {spread.high:.2f}]"


def _format_percent(estimate: Estimate) -> str:
    error, shown = estimate.spread.standard_error, f"{estimate.value * 100:+.1f}"
    return f"{shown} %" if math.isnan(error) else f"{shown} ± {error * 100:.1f} %"


def _format_number(value: Value) -> str:
    """Return a number with three digits, or whole if it is large; nothing for what is none."""
    if not isinstance(value, (int, float)):
        return ""
    is_small = isinstance(value, float) and value < 1e3
    return f"{value:.3g}" if is_small else f"{value:,.0f}"


def _of_estimates(write: Callable[[Estimate], str]) -> Callable[[Value], str]:
    """Return what writes an estimate, and nothing where it is not known."""
    return lambda value: (
        write(value) if isinstance(value, Estimate) and not math.isnan(value.value) else ""
    )


_FORMATS: dict[Kind, Callable[[Value], str]] = {
    Kind.WORD: str,
    Kind.COUNT: _format_number,
    Kind.COST: _format_number,
    Kind.MEAN: _of_estimates(_format_mean),
    Kind.INTERVAL: _of_estimates(_format_interval),
    Kind.RATIO: _of_estimates(lambda estimate: f"{estimate.value:.2f}"),
    Kind.PERCENT: _of_estimates(_format_percent),
    Kind.CORRELATION: _of_estimates(lambda estimate: _format_pair(estimate, ".2f")),
}
