"""The headline numbers of a comparison, and what is plainly to be said of its campaigns."""

from __future__ import annotations

import math
from collections.abc import Iterator

from labelwise.pages.document import Fact
from labelwise.studies.comparison.record import StudyRecord
from labelwise.studies.comparison.results import unit_of
from labelwise.studies.comparison.series import Comparison, Series
from labelwise.studies.comparison.statistics import CONFIDENCE, Estimate, estimate_mean
from labelwise.studies.comparison.tables import find_best, ratio_of

_LISTED = 12
_WORDS = {"energy": "energies", "forces": "forces", "stress": "stress"}


def list_facts(record: StudyRecord) -> tuple[Fact, ...]:
    """Return the headline numbers of a study."""
    comparison = record.comparison
    return (*_list_best(comparison), *_list_sizes(record))


def describe_study(record: StudyRecord) -> str:
    """Return one line: how much of what was compared."""
    comparison = record.comparison
    names = [each.label for each in comparison.series if each is not _reference_of(comparison)]
    methods = _shorten(names, most=5, mark=", ") if names else "no other method"
    return (
        f"{methods} against {comparison.reference} on "
        f"{_count(len(comparison.pools), 'pool')}: {_shorten(comparison.pools, most=5, mark=', ')}"
    )


def _list_best(comparison: Comparison) -> Iterator[Fact]:
    energy, forces, *stress = comparison.areas
    for quantity, error, name in (forces, energy, *stress):
        best = find_best(comparison, quantity, error)
        if best is None:
            continue
        mean = estimate_mean(best.values(quantity, error))
        word = _WORDS[error.split("_")[0]]
        note = f"{name} {mean.value:.4g} {unit_of(error)}"
        if best is comparison.find_reference(best):
            note += "; no method is better"
        else:
            ratio = ratio_of(comparison, best, quantity, error)
            note += f", {_format_ratio(ratio, comparison.reference)}"
        if any(len(each.cells) < len(comparison.places) for each in comparison.series):
            note += "; incomplete methods left out"
        yield Fact(f"Best on {word}", best.label, note)


def _list_sizes(record: StudyRecord) -> Iterator[Fact]:
    comparison = record.comparison
    n_lost = comparison.n_planned - comparison.n_used
    yield Fact(
        "Campaigns",
        f"{comparison.n_used} of {comparison.n_planned}",
        f"{n_lost} not in the tables, see below" if n_lost else "all of them are in the tables",
    )
    yield Fact("Pools", str(len(comparison.pools)), _shorten(comparison.pools, most=4, mark=", "))
    seeds = sorted({seed for _, seed in comparison.places})
    yield Fact("Seeds", str(len(seeds)), _shorten([str(seed) for seed in seeds], mark=", "))
    yield Fact("Time", _format_hours(record.hours), "of all campaigns together")


def _format_ratio(ratio: Estimate, reference: str) -> str:
    """Return a ratio in words, with its interval where there is one; empty if unknown."""
    if not math.isfinite(ratio.value):
        return "ratio unknown"
    shown = f"{ratio.value:.2f} × {reference}"
    low, high = ratio.spread.low, ratio.spread.high
    if not math.isfinite(low):
        return shown
    return f"{shown} ({CONFIDENCE * 100:.0f} %: {low:.2g} to {high:.2g})"


def _format_hours(hours: float) -> str:
    if hours >= 1.0:
        return f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"


def _reference_of(comparison: Comparison) -> Series | None:
    found = [each for each in comparison.series if each is comparison.find_reference(each)]
    return found[0] if found else None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shorten(labels: list[str] | tuple[str, ...], *, most: int = _LISTED, mark: str = "; ") -> str:
    more = f"{mark}and {len(labels) - most} more" if len(labels) > most else ""
    return mark.join(labels[:most]) + more
