"""Which cells of a study its tables are made of, and what each of them is held against."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from labelwise.errors import ArgumentError
from labelwise.studies.comparison.results import (
    ERRORS,
    STRESS_ERRORS,
    CellKey,
    CellResult,
    name_error,
)
from labelwise.studies.comparison.statistics import Place, sum_rounds

#: Quantities of a finished campaign that tables hold; each exists for each error.
QUANTITIES = ("auc", "auc_with_round_0", "final")
#: What the page shows: quantities and errors with their names, in the order of the papers' Table 4.
_SHOWN = (("auc", "AUC"), ("final", "final"))
_LETTERS = {"energy_rmse": "E", "forces_rmse": "F", "stress_rmse": "S"}
_STARTS = frozenset({"scratch", "pretrained", "last"})


@dataclass(frozen=True)
class Series:
    """A method and what its fine-tuning starts with, over all pools and seeds.

    Attributes:
        method: Its name in the study.
        start: ``pretrained``, ``scratch`` or ``last``.
        cells: Place to finished campaign; only those that the tables use.
    """

    method: str
    start: str
    cells: dict[Place, CellResult]

    @property
    def label(self) -> str:
        """The method's name, with the start where the name does not say it."""
        if self.start == "pretrained" or self.start in self._words:
            return self.method
        return f"{self.method} ({self.start})"

    @property
    def kernel(self) -> str:
        """The method's name without a word for its start: what Table 6 pairs by."""
        kept = [word for word in self._words if word not in _STARTS]
        return "-".join(kept) if 0 < len(kept) < len(self._words) else self.method

    @property
    def _words(self) -> list[str]:
        return [word for word in self.method.replace("_", "-").split("-") if word]

    def values(self, quantity: str, error: str) -> dict[Place, float]:
        """Return one of ``QUANTITIES`` of each cell, in the unit of the error; NaN if unknown.

        Cells whose test sets have no stress labels are in none of stress.
        """
        return {place: measure(cell, quantity, error) for place, cell in self.asked(error).items()}

    def asked(self, error: str) -> dict[Place, CellResult]:
        """Return the cells whose test sets have such an error."""
        return {place: cell for place, cell in self.cells.items() if cell.is_asked(error)}

    def in_pool(self, pool: str) -> Series:
        """Return the part of it that is of one pool."""
        return replace(self, cells={p: c for p, c in self.cells.items() if p[0] == pool})


@dataclass(frozen=True)
class Comparison:
    """The cells of a study, sorted into those that are used and those that are not.

    Attributes:
        reference: Name of the method that others are held against.
        series: One for each method and start, the reference first, then as they came.
        pools: Names of all pools, as they came.
        places: All pools and seeds that any cell names.
        unfinished: Labels of cells that have begun and not ended.
        missing: Labels of cells that nothing is known of: planned ones, or if no plan is
            given those whose pool and seed other methods have.
        odd: Labels of finished cells with another number of rounds than most of their pool:
            sums over rounds and last rounds cannot be compared with theirs.
        cells: All cells as they came, finished or not.
        n_planned: Cells of the whole study, as far as it is known.
        energy_errors: ``total`` or ``per-atom``: which energy errors tables and pictures show.
    """

    reference: str
    series: tuple[Series, ...]
    pools: tuple[str, ...]
    places: tuple[Place, ...]
    unfinished: tuple[str, ...]
    missing: tuple[str, ...]
    odd: tuple[str, ...]
    cells: tuple[CellResult, ...]
    n_planned: int
    energy_errors: str = "total"

    @property
    def errors(self) -> tuple[str, ...]:
        """The errors that tables hold, in the order of ``ERRORS``, those of stress last."""
        usual = tuple(name_error(error, self.energy_errors) for error in ERRORS)
        return (*usual, *STRESS_ERRORS) if self.has_stress else usual

    @property
    def has_stress(self) -> bool:
        """Whether any test set, or a split of one, has stress labels."""
        return any(
            error in curves
            for cell in self.cells
            for curves in (cell.curves, *cell.splits.values())
            for error in STRESS_ERRORS
        )

    @property
    def shown(self) -> tuple[tuple[str, str, str], ...]:
        """Quantity, error and name of what the page shows, in the order of Table 4.

        MAE and the sum with round 0 are in the CSV.
        """
        return tuple(
            (quantity, name_error(error, self.energy_errors), f"{name} {letter}")
            for quantity, name in _SHOWN
            for error, letter in _LETTERS.items()
            if error not in STRESS_ERRORS or self.has_stress
        )

    @property
    def areas(self) -> tuple[tuple[str, str, str], ...]:
        """Those of ``shown`` that are sums over rounds: of energies, of forces, of stress."""
        return tuple(each for each in self.shown if each[0] == "auc")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the test sets that any used cell was measured on, in alphabetical order."""
        cells = [cell for each in self.series for cell in each.cells.values()]
        return tuple(sorted({name for cell in cells for name in cell.splits}))

    def in_split(self, split: str) -> Comparison:
        """Return the same comparison on one split of the test sets, of cells that have it."""
        parts = [
            replace(
                each,
                cells={
                    place: replace(cell, curves=cell.splits[split])
                    for place, cell in each.cells.items()
                    if split in cell.splits
                },
            )
            for each in self.series
        ]
        return replace(self, series=tuple(parts))

    @property
    def n_used(self) -> int:
        """Cells that the tables are made of."""
        return sum(len(each.cells) for each in self.series)

    def find_reference(self, series: Series) -> Series | None:
        """Return what a series is held against: the reference method with the same start.

        If the reference never ran with that start it is the one that did run, provided there
        is only one.
        """
        known = [each for each in self.series if each.kernel == self.reference]
        same = [each for each in known if each.start == series.start]
        if same:
            return same[0]
        return known[0] if len(known) == 1 else None


def compare_cells(
    results: Sequence[CellResult],
    *,
    reference: str = "random",
    planned: Sequence[CellKey] = (),
    energy_errors: str = "total",
) -> Comparison:
    """Sort the cells of a study.

    Args:
        results: Cells in any order, finished or not; may be empty.
        reference: Name of the method that others are held against; it may be missing.
        planned: All cells of the study; by default every known method with every known pool
            and seed.
        energy_errors: ``total`` or ``per-atom``: which energy errors tables and pictures show.

    Returns:
        The comparison. Unfinished cells are in none of its series: a campaign that is three
        rounds short has a smaller area and a larger last error than one that is not.

    Raises:
        ArgumentError: two cells of the same pool, method, seed and start, or an unknown word
            for energy_errors.
    """
    name_error(ERRORS[0], energy_errors)
    counts = Counter((cell.key, cell.start) for cell in results)
    doubles = [key for (key, _), count in counts.items() if count > 1]
    if doubles:
        raise ArgumentError(
            f"results hold {describe_place(doubles[0].pool, doubles[0].seed)}, method "
            f"{doubles[0].method!r} twice; give each cell once"
        )
    n_rounds = _usual_rounds(results)
    grouped: dict[tuple[str, str], dict[Place, CellResult]] = {}
    for cell in results:
        grouped.setdefault((cell.key.method, cell.start), {})[place_of(cell)] = cell
    series = [
        Series(method, start, {p: c for p, c in cells.items() if _is_usable(c, n_rounds)})
        for (method, start), cells in grouped.items()
    ]
    places = tuple(sorted({place_of(cell) for cell in results}))
    keys = {cell.key for cell in results}
    absent = [_name_key(key) for key in planned if key not in keys]
    if not planned:
        absent = [
            f"{each.label}, {describe_place(*place)}"
            for each in series
            for place in places
            if place not in grouped[each.method, each.start]
        ]
    odd = [c for c in results if c.is_finished and not _is_usable(c, n_rounds)]
    return Comparison(
        reference=reference,
        series=tuple(sorted(series, key=lambda each: each.kernel != reference)),
        pools=tuple(dict.fromkeys(cell.key.pool for cell in results)),
        places=places,
        unfinished=tuple(_describe(c) for c in results if not c.is_finished),
        missing=tuple(absent),
        odd=tuple(f"{_describe(c)} ({len(c.n_labels)} rounds)" for c in odd),
        cells=tuple(results),
        n_planned=len(results) + len(absent),
        energy_errors=energy_errors,
    )


def measure(cell: CellResult, quantity: str, error: str) -> float:
    """Return one number of a campaign, in the unit of the error; NaN if it is not known.

    ``auc`` is the sum over the rounds after round 0, ``auc_with_round_0`` over all, and ``final``
    the error after the last round.
    """
    curve = cell.curves.get(error, ())
    if not curve:
        return math.nan
    if quantity == "final":
        return float(curve[-1]) if math.isfinite(curve[-1]) else math.nan
    return sum_rounds(curve, first_round=0 if quantity == "auc_with_round_0" else 1)


def place_of(cell: CellResult) -> Place:
    """Return the pool and seed that a cell is paired by."""
    return cell.key.pool, cell.key.seed


def describe_place(pool: str, seed: int) -> str:
    """Name a pool and seed for people."""
    return f"pool {pool}, seed {seed}"


def _name_key(key: CellKey) -> str:
    return f"{key.method}, {describe_place(key.pool, key.seed)}"


def _describe(cell: CellResult) -> str:
    label = Series(cell.key.method, cell.start, {}).label
    return f"{label}, {describe_place(*place_of(cell))}"


def _usual_rounds(results: Sequence[CellResult]) -> dict[str, int]:
    """Return how many rounds most finished campaigns of each pool have; the larger if tied."""
    counts: dict[str, Counter[int]] = {}
    for cell in results:
        if cell.is_finished:
            counts.setdefault(cell.key.pool, Counter())[len(cell.n_labels)] += 1
    return {pool: max(counter, key=lambda n: (counter[n], n)) for pool, counter in counts.items()}


def _is_usable(cell: CellResult, n_rounds: dict[str, int]) -> bool:
    return cell.is_finished and len(cell.n_labels) == n_rounds[cell.key.pool]
