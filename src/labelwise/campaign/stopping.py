"""When to stop, and what one more batch would bring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelwise.campaign.state import CampaignState

_LEAST_POINTS = 3
_LAST_POINTS = 6


@dataclass(frozen=True)
class Forecast:
    """What one more batch would bring.

    Attributes:
        error: Name of the error.
        now: As measured last, meV, meV/atom or meV/Å.
        expected: After one more batch, same unit.
        spread: Factor by which the curve scatters about the fit (standard deviation of the
            logarithm), dimensionless; a change below it is not to be told from chance.
    """

    error: str
    now: float
    expected: float
    spread: float

    @property
    def gain(self) -> float:
        """The part of the error that one more batch is expected to take away."""
        return 1.0 - self.expected / self.now


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
    errors = state.rounds[-1]["errors"].get("test", {})
    if limit is not None and state.n_round > limit:
        return f"{limit} rounds are done"
    if n_left <= 0:
        return "the pool has no structures left to choose"
    if stop.labels is not None and n_paid >= stop.labels:
        return f"the budget of {stop.labels} labels is spent ({n_paid} calculations)"
    if stop.hours is not None and hours >= stop.hours:
        return f"{stop.hours:g} hours are over ({hours:.2f})"
    if stop.target and all(errors.get(k, np.inf) <= v for k, v in stop.target.items()):
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


def sum_hours(rounds: Sequence[dict[str, Any]]) -> float:
    """Return the wall time of all stages of finished rounds, hours."""
    seconds = [stage["seconds"] for record in rounds for stage in record["stages"].values()]
    return float(sum(seconds)) / 3600.0


def get_curve(rounds: Sequence[dict[str, Any]], error: str) -> list[tuple[int, float]]:
    """Return (labelled structures, error) of each round that was measured.

    Args:
        rounds: Lines of ``rounds.jsonl``.
        error: Field of ``ErrorTable``, on the test set; on the validation set without one.
    """
    curve = []
    for record in rounds:
        errors = record["errors"].get("test", record["errors"].get("valid"))
        if errors is not None:
            curve.append((int(record["n_train"]), float(errors[error])))
    return curve


def forecast(
    rounds: Sequence[dict[str, Any]], n_batch: int, *, error: str = "forces_rmse"
) -> Forecast | None:
    """Estimate what one more batch would bring.

    Learning curves of potentials fall as a power of the number of labels, so a straight
    line is fitted to log error over log labels of the last six rounds (least squares) and
    read off one batch farther; what is expected is the last error times the ratio of the
    line at both places. It knows nothing of which structures are left.

    Args:
        rounds: Lines of ``rounds.jsonl``.
        n_batch: Structures of the batch.
        error: Field of ``ErrorTable``.

    Returns:
        The estimate; None with fewer than three measurements.
    """
    curve = [point for point in get_curve(rounds, error) if min(point) > 0][-_LAST_POINTS:]
    if len({n for n, _ in curve}) < _LEAST_POINTS:
        return None
    x, y = np.log(np.array(curve, dtype=np.float64)).T
    design = np.stack([x, np.ones_like(x)], axis=1)
    (slope, intercept), *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ np.array([slope, intercept])
    spread = float(np.sqrt(np.square(residual).sum() / max(1, len(curve) - 2)))
    n_now, now = curve[-1]
    ratio = float(((n_now + n_batch) / n_now) ** slope)
    return Forecast(error, now, now * ratio, float(np.exp(spread)))


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
