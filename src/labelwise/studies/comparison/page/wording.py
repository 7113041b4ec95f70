"""How captions say what means and ratios are taken over."""

from __future__ import annotations

from labelwise.studies.comparison.series import Comparison
from labelwise.studies.comparison.statistics import CONFIDENCE


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
            f"{common}; low and high: {interval} over pool means, which is itself uncertain for "
            "few pools. Not corrected for the number of methods."
        )
    return (
        f"{common}; low and high: {interval} over seeds: it speaks of other seeds of this pool "
        "and not of other pools. Not corrected for the number of methods."
    )
