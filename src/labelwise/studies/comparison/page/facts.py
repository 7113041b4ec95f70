"""The headline numbers of a comparison, and what is plainly to be said of its campaigns."""

from __future__ import annotations

import math
from collections.abc import Iterator

from labelwise.pages.document import Fact
from labelwise.studies.comparison.page.record import StudyRecord
from labelwise.studies.comparison.results import unit_of
from labelwise.studies.comparison.series import Comparison, Series
from labelwise.studies.comparison.statistics import CONFIDENCE, Estimate, estimate_mean
from labelwise.studies.comparison.tables import ratio_of

_LISTED = 12
_WORDS = {"energy": "energies", "forces": "forces"}


def list_facts(record: StudyRecord) -> tuple[Fact, ...]:
    """Return the headline numbers of a study."""
    comparison = record.comparison
    return (*_list_best(comparison), *_list_sizes(record))


def list_warnings(record: StudyRecord) -> tuple[str, ...]:
    """Return a sentence for each kind of campaign that the tables do not hold, or hold oddly."""
    comparison = record.comparison
    kinds = (
        ("unfinished, and in no table or chart", comparison.unfinished),
        ("missing", comparison.missing),
        ("left out for another number of rounds than most of their pool", comparison.odd),
        ("with errors that are not finite, so that cells are blank", record.not_finite),
    )
    found = [
        f"{_count(len(labels), 'campaign')} {words}: {_shorten(labels)}."
        for words, labels in kinds
        if labels
    ]
    if not comparison.n_used:
        found.insert(0, "No campaign is finished, so there is nothing to compare yet.")
    elif not any(comparison.find_reference(each) for each in comparison.series):
        found.append(
            f"No campaign of {comparison.reference} is known: there are no ratios and gains."
        )
    return tuple(found)


def describe_study(record: StudyRecord) -> str:
    """Return one line: how much of what was compared."""
    comparison = record.comparison
    names = [each.label for each in comparison.series if each is not _reference_of(comparison)]
    methods = _shorten(names, most=5, mark=", ") if names else "no other method"
    return (
        f"{methods} against {comparison.reference} on "
        f"{_count(len(comparison.pools), 'pool')}: {_shorten(comparison.pools, most=5, mark=', ')}"
    )


def find_best(comparison: Comparison, quantity: str, error: str) -> Series | None:
    """Return the method of the lowest mean, of those that have all pools and seeds.

    Args:
        comparison: The campaigns.
        quantity: ``auc``, ``auc_with_round_0`` or ``final``.
        error: One of the comparison's errors.

    Returns:
        None unless there are two such methods at least.
    """
    complete = [
        (mean.value, place)
        for place, each in enumerate(comparison.series)
        if len(each.cells) == len(comparison.places)
        and math.isfinite((mean := estimate_mean(each.values(quantity, error))).value)
    ]
    return comparison.series[min(complete)[1]] if len(complete) > 1 else None


def _list_best(comparison: Comparison) -> Iterator[Fact]:
    for quantity, error, name in reversed(comparison.shown[:2]):
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
