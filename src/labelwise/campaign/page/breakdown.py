"""Where a model errs: by element, by composition, by what structures say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Bool, Float64, Int64

from labelwise.campaign.page.scored import ScoredSet
from labelwise.campaign.page.wording import as_float32
from labelwise.finetuning.metrics import root_mean_square
from labelwise.pages.document import (
    Axis,
    CategoryColumn,
    Chart,
    Choice,
    Column,
    Mark,
    NumberColumn,
    Series,
)
from labelwise.selection.page.pool_columns import FORMULA

#: Groups that have bars: the largest.
MOST_GROUPS = 12
#: Info keys by which errors are grouped.
MOST_KEYS = 6
#: Paths that are shown.
MOST_PATHS = 24
#: Info keys that tell the place along a path; of those present the first is taken.
PATH_KEYS = ("path_position", "image", "position", "step", "frame", "index", "time", "iteration")
_LEAST_PLACES = 4
_MOST_PLACES = 200
_MEV = 1000.0
_FORCE_AXIS = Axis("force RMSE / meV Å⁻¹")
_ENERGY_AXIS = Axis("energy RMSE / meV atom⁻¹")


@dataclass(frozen=True)
class Grouping:
    """Structures in groups.

    Attributes:
        name: What tells the groups apart.
        words: Names of the groups, the largest first, (g,).
        members: Structures of each group.
    """

    name: str
    words: tuple[str, ...]
    members: tuple[Int64[np.ndarray, " _"], ...]


def find_groupings(columns: Sequence[Column], first: str | None = None) -> list[Grouping]:
    """Return in which ways words group structures.

    Args:
        columns: What is known of n structures; of the columns of words those that tell
            structures apart, but not every one from every other.
        first: Name of a column that comes first, if it is there.
    """
    found = []
    for column in columns:
        if isinstance(column, CategoryColumn) and len(column.categories) > 1:
            n_known = int((column.codes >= 0).sum())
            if len(column.categories) <= max(2, n_known // 2):
                found.append(_group(column))
    found.sort(key=lambda grouping: grouping.name != first)
    return found[:MOST_KEYS]


def _group(column: CategoryColumn) -> Grouping:
    members = [np.flatnonzero(column.codes == code) for code in range(len(column.categories))]
    order = sorted(range(len(members)), key=lambda code: -len(members[code]))
    kept = [code for code in order[:MOST_GROUPS] if len(members[code])]
    return Grouping(
        column.name,
        tuple(column.categories[code] for code in kept),
        tuple(members[code].astype(np.int64) for code in kept),
    )


def make_error_bars(scored: ScoredSet, groupings: Sequence[Grouping]) -> tuple[Choice, ...]:
    """Return force and energy errors by element and by group, of the first and last round."""
    forces = [("element", _element_bars(scored))]
    energies = []
    for number, grouping in enumerate(groupings):
        forces.append((grouping.name, _group_bars(scored, grouping, f"forces-{number}", True)))
        energies.append((grouping.name, _group_bars(scored, grouping, f"energy-{number}", False)))
    first = min(1, len(forces) - 1)
    choices = [Choice("error-by-group-forces", "by", tuple(forces), first=first)]
    if energies:
        choices.append(Choice("error-by-group-energy", "by", tuple(energies)))
    return tuple(choices)


def _element_bars(scored: ScoredSet) -> Chart:
    """Return force errors of the atoms of each element."""
    labelled = scored.labelled
    counted = np.concatenate(labelled.counted)
    numbers = np.concatenate([frame.atoms.numbers for frame in labelled.frames])[counted]
    elements = np.unique(numbers).tolist()
    true = np.concatenate(labelled.forces)[counted]

    def measure(place: int) -> list[float]:
        errors = (np.concatenate(scored.predictions[place].forces)[counted] - true) * _MEV
        return [root_mean_square(errors[numbers == z]) for z in elements]

    return _bars(
        scored,
        "element",
        "Force",
        "element",
        [chemical_symbols[z] for z in elements],
        measure,
        f"Over the force components of the atoms of each element, {scored.title}.",
    )


def _group_bars(scored: ScoredSet, grouping: Grouping, name: str, is_force: bool) -> Chart:
    sizes = [len(idx) for idx in grouping.members]
    return _bars(
        scored,
        name,
        "Force" if is_force else "Energy",
        grouping.name,
        grouping.words,
        lambda place: [_rmse(scored, place, idx, is_force) for idx in grouping.members],
        f"{scored.title[:1].upper()}{scored.title[1:]}; the groups shown have "
        f"{min(sizes):,} to {max(sizes):,} structures.",
    )


def _bars(
    scored: ScoredSet,
    name: str,
    kind: str,
    by: str,
    words: Sequence[str],
    measure: Callable[[int], list[float]],
    caption: str,
) -> Chart:
    """Return bars of the first and the last round.

    Args:
        scored: A held-out set and its predictions.
        name: Of the chart, behind ``error-by-``.
        kind: ``Force`` or ``Energy``.
        by: What the groups are told apart by.
        words: Names of the g groups.
        measure: Returns the error of each group, (g,), by the place of a round.
        caption: What stands below.
    """
    series = tuple(
        Series(f"round {scored.rounds[place]}", tuple(words), as_float32(measure(place)))
        for place in scored.extremes
    )
    return Chart(
        f"error-by-{name}",
        f"{kind} error by {by}",
        Mark.BARS,
        Axis(by),
        _FORCE_AXIS if kind == "Force" else _ENERGY_AXIS,
        series,
        caption=caption,
    )


def _rmse(scored: ScoredSet, place: int, idx: Int64[np.ndarray, " k"], is_force: bool) -> float:
    """Return the error over some structures: of force components, or of energies per atom."""
    if not is_force:
        return root_mean_square(scored.errors[place].energy_per_atom[idx])
    labelled, forces = scored.labelled, scored.predictions[place].forces
    parts = [
        (forces[i] - labelled.forces[i])[labelled.counted[i]].ravel() * _MEV for i in idx.tolist()
    ]
    return root_mean_square(np.concatenate([np.zeros(0), *parts]))


def make_path_errors(scored: ScoredSet, columns: Sequence[Column]) -> Choice | None:
    """Return errors along paths, where structures say which path and which place.

    Args:
        scored: A held-out set and its predictions.
        columns: What is known of its structures. A path is a word, such as a reaction, whose
            structures have several whole numbers under a key of ``PATH_KEYS``.

    Returns:
        A chart for each path, of the first and the last round; None if there are no paths.
    """
    found = _find_path(columns)
    if found is None:
        return None
    groups, position = found
    options = []
    for number, (word, idx) in enumerate(zip(groups.words, groups.members, strict=True)):
        places = np.unique(position.values[idx][np.isfinite(position.values[idx])])
        if len(places) >= _LEAST_PLACES:
            options.append((word, _path_chart(scored, groups, number, position)))
    if not options:
        return None
    return Choice("error-along-path", groups.name, tuple(options[:MOST_PATHS]))


def _find_path(columns: Sequence[Column]) -> tuple[Grouping, NumberColumn] | None:
    """Return the paths with most places, and the column of the places."""
    numbers = {each.name: each for each in columns if isinstance(each, NumberColumn)}
    columns = sorted(columns, key=lambda column: column.name == FORMULA)  # others go first
    positions = [numbers[key] for key in PATH_KEYS if key in numbers]
    for position in positions:
        best: tuple[int, Grouping] | None = None
        for column in columns:
            if isinstance(column, CategoryColumn) and len(column.categories) > 1:
                n_paths = sum(
                    _LEAST_PLACES <= n <= _MOST_PLACES for n in _count_places(column, position)
                )
                if n_paths and (best is None or n_paths > best[0]):
                    best = (n_paths, _group(column))
        if best is not None:
            return best[1], position
    return None


def _count_places(column: CategoryColumn, position: NumberColumn) -> Iterator[int]:
    """Yield for each group how many different whole numbers it has; 0 if others are there."""
    known = np.isfinite(position.values)
    for code in range(len(column.categories)):
        values = position.values[(column.codes == code) & known]
        is_whole: Bool[np.ndarray, " k"] = values == np.round(values)
        yield len(np.unique(values)) if is_whole.all() else 0


def _path_chart(scored: ScoredSet, groups: Grouping, number: int, position: NumberColumn) -> Chart:
    word, idx = groups.words[number], groups.members[number]
    values = position.values[idx]
    places = np.unique(values[np.isfinite(values)])
    series = []
    for place in scored.extremes:
        errors = scored.errors[place].forces[idx]
        series.append(_path_line(f"round {scored.rounds[place]}", places, values, errors))
    n_each = len(idx) / max(1, len(places))
    several = f" {n_each:.1f} structures a point on average; bands reach from the least to the "
    return Chart(
        f"error-along-path-{number}",
        f"Force error along {word}",
        Mark.LINES,
        Axis(position.name),
        _FORCE_AXIS,
        tuple(series),
        caption=f"Root mean square of the structures at each {position.name}, {scored.title}."
        + (f"{several}largest." if n_each > 1 else ""),
        band_name="least to largest" if n_each > 1 else "",
    )


def _path_line(
    name: str,
    places: np.ndarray,
    values: np.ndarray,
    errors: Float64[np.ndarray, " k"],
) -> Series:
    at_place = [errors[(values == x) & np.isfinite(errors)] for x in places]
    means = [root_mean_square(each) for each in at_place]
    low = [each.min() if len(each) else np.nan for each in at_place]
    high = [each.max() if len(each) else np.nan for each in at_place]
    has_band = any(len(each) > 1 for each in at_place)
    return Series(
        name,
        as_float32(places),
        as_float32(means),
        low=as_float32(low) if has_band else None,
        high=as_float32(high) if has_band else None,
    )
