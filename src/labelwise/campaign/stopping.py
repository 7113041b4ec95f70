"""When to stop, and what to do about structures that failed."""

from __future__ import annotations

import math
from collections import Counter

from labelwise.campaign.rounds import get_curve, sum_hours
from labelwise.campaign.state import CampaignState


def find_reason_to_stop(
    state: CampaignState, *, n_left: int, n_rounds: int | None = None
) -> str | None:
    """Return why no further round should begin, in words, or None.

    A round that is under way is finished first, so that the reasons are looked at between
    rounds only and a resumed run stops where an uninterrupted one does.

    Args:
        state: The campaign.
        n_left: Structures of the pool that can still be chosen.
        n_rounds: Rounds after round 0, in place of ``stop.rounds``.
    """
    if not state.rounds or state.stage != "select":
        return None
    stop = state.config.stop
    limit = n_rounds if n_rounds is not None else stop.rounds
    n_paid = len(state.labels) + len(state.failures)
    hours = sum_hours(state.rounds)
    errors = state.rounds[-1].errors.get("test", {})
    if limit is not None and state.n_round > limit:
        return f"{limit} rounds are done"
    if n_left <= 0:
        return "the pool has no structures left to choose"
    if stop.labels is not None and n_paid >= stop.labels:
        return f"the budget of {stop.labels} labels is spent ({n_paid} calculations)"
    if stop.hours is not None and hours >= stop.hours:
        return f"{stop.hours:g} hours are over ({hours:.2f})"
    if stop.target and all(errors.get(k, math.inf) <= v for k, v in stop.target.items()):
        reached = ", ".join(f"{name} {errors[name]:.3g}" for name in stop.target)
        return f"the target is reached: {reached}"
    return _find_plateau(state)


def remind_of_failures(state: CampaignState) -> str:
    """Return how many structures are set aside as failed and what to do; else nothing."""
    if not state.failures:
        return ""
    reasons = Counter(record["failed"] for record in state.failures.values())
    listed = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
    count = len(state.failures)
    are = "1 structure is" if count == 1 else f"{count:,} structures are"
    return (
        f"{are} set aside because their calculations failed ({listed}): to let them be chosen "
        "again, run with --retry-failed"
    )


def _find_plateau(state: CampaignState) -> str | None:
    """Return that the best error of the last rounds is hardly below the best before them."""
    plateau = state.config.stop.plateau
    if plateau is None:
        return None
    values = [value for _, value in get_curve(state.rounds, plateau.error)]
    if len(values) <= plateau.rounds:
        return None
    before, since = min(values[: -plateau.rounds]), min(values[-plateau.rounds :])
    if since > before * (1.0 - plateau.improvement):
        return (
            f"no progress: {plateau.error} fell from {before:.4g} to {since:.4g} in "
            f"{plateau.rounds} rounds, less than {plateau.improvement:.1%}"
        )
    return None
