"""What is said of a comparison's tables, in results.md and on the page alike."""

from __future__ import annotations

from collections.abc import Sequence

from labelwise.studies.comparison.series import Comparison
from labelwise.studies.comparison.statistics import CONFIDENCE
from labelwise.studies.comparison.tables import list_unknown

_LISTED = 20


def describe_spread(comparison: Comparison) -> str:
    """Say what the standard error of a mean is taken over."""
    if len(comparison.pools) > 1:
        return "standard error of the pool means (over seeds for a single pool)."
    if len(comparison.places) > 1:
        return "standard error over seeds."
    return "unknown, for there is one seed only."


def describe_interval(comparison: Comparison) -> str:
    """Say how ratios are paired and what their interval speaks of."""
    common = (
        f"Geometric mean of the ratios to {comparison.reference} on the same pool with the same "
        "seed"
    )
    if len(comparison.places) < 2:
        return f"{common}; there is one pair only, so no interval."
    interval = f"paired {CONFIDENCE * 100:.0f} % t-interval of its logarithm"
    if len(comparison.pools) > 1:
        return (
            f"{common}; low and high: {interval} over pool means, not over all pairs: seeds of one "
            "pool share its structures and test set and are not independent. It is itself "
            "uncertain for few pools; errors.csv has that over all pairs beside it. Not corrected "
            "for the number of methods."
        )
    return (
        f"{common}; low and high: {interval} over seeds: it speaks of other seeds of this pool "
        "and not of other pools. Not corrected for the number of methods."
    )


def list_warnings(comparison: Comparison) -> tuple[str, ...]:
    """Return a sentence for each kind of campaign that the tables do not hold, or hold oddly."""
    kinds = (
        ("unfinished, and in no table or chart", comparison.unfinished),
        ("missing", comparison.missing),
        ("left out for another number of rounds than most of their pool", comparison.odd),
        ("with errors that are not finite, so that cells are blank", list_unknown(comparison)),
    )
    found = [
        f"{len(labels)} campaign{'' if len(labels) == 1 else 's'} {words}: {_shorten(labels)}."
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


def _shorten(labels: Sequence[str]) -> str:
    more = f"; and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    return "; ".join(labels[:_LISTED]) + more
