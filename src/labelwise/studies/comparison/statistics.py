"""Means and ratios over pools and seeds, with what can honestly be said about their spread.

A study has few pools (the papers have three) and a few seeds in each. Seeds of one pool share its
structures and its test set, so that their results are not independent: six cells of three pools
are not six measurements. With two pools or more the unit is therefore the pool. Its seeds are
averaged first, and standard error and t-interval come from the pool means, with one degree of
freedom fewer than there are pools. In a balanced design that is the exact interval of a random
pool with random seeds in it; it is wide with few pools because few pools say little about others.
A hierarchical bootstrap was considered: three pools give ten distinct draws, and a percentile
interval less than half as wide as the t-interval. With one pool the seeds are the unit,
and the interval speaks of other seeds of that pool only. The interval over all cells as if they
were independent is given beside it, since that is what is often published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from labelwise.errors import ArgumentError
from labelwise.finetuning.metrics import auc_of_curve

#: A pool and a seed: what the methods of a comparison are paired by.
Place = tuple[str, int]

CONFIDENCE = 0.95
_NAN = math.nan


@dataclass(frozen=True)
class Spread:
    """How far a mean can be trusted, from values taken as independent.

    Attributes:
        standard_error: Of the mean; NaN for one value. For ratios that of the logarithm.
        low: Lower end of the t-interval; NaN for one value.
        high: Upper end.
    """

    standard_error: float = _NAN
    low: float = _NAN
    high: float = _NAN


@dataclass(frozen=True)
class Estimate:
    """A mean over pools and seeds.

    Attributes:
        value: Mean of the pool means, for ratios the geometric one; NaN without values or
            if one of them is not known.
        spread: Over the unit: pool means with two pools or more, else seeds.
        cell_spread: Over all cells as if they were independent, about their own mean.
        unit: ``pools`` or ``seeds``: what ``spread`` is taken over.
        n_pools: Pools that have values.
        n_cells: Cells, or pairs of cells.
    """

    value: float
    spread: Spread
    cell_spread: Spread
    unit: str
    n_pools: int
    n_cells: int


def estimate_mean(values: Mapping[Place, float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Average values over the seeds of each pool, then over pools.

    Args:
        values: One for each pool and seed, in any unit. One that is not finite makes the mean
            NaN: to leave a failed campaign out would flatter its method.
        confidence: Of the intervals, between 0 and 1.

    Returns:
        Mean, standard errors and t-intervals in the unit of the values.

    Raises:
        ArgumentError: confidence out of range.
    """
    _check_confidence(confidence)
    cells = np.array([values[place] for place in sorted(values)], dtype=np.float64)
    pools = sorted({pool for pool, _ in values})
    unit = "pools" if len(pools) > 1 else "seeds"
    if not len(cells) or not np.isfinite(cells).all():
        return Estimate(_NAN, Spread(), Spread(), unit, len(pools), len(cells))
    means = np.array([np.mean([values[p] for p in values if p[0] == pool]) for pool in pools])
    cell_spread = _spread(cells, confidence)
    return Estimate(
        value=float(means.mean()),
        spread=_spread(means, confidence) if len(pools) > 1 else cell_spread,
        cell_spread=cell_spread,
        unit=unit,
        n_pools=len(pools),
        n_cells=len(cells),
    )


def estimate_ratio(
    method: Mapping[Place, float],
    reference: Mapping[Place, float],
    *,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Average the ratio of a method to a reference over the places that have both.

    The ratio of each pair is taken first, so that what a pool or a seed does to both drops
    out. Ratios are averaged as logarithms: twice as good and half as good cancel.

    Args:
        method: One value > 0 for each pool and seed.
        reference: The same of what it is held against, in the same unit.
        confidence: Of the intervals, between 0 and 1.

    Returns:
        Geometric mean and intervals, dimensionless; the standard errors are of the natural
        logarithm, so about relative ones.

    Raises:
        ArgumentError: confidence out of range.
    """
    logs = {
        place: _log_ratio(method[place], reference[place])
        for place in sorted(method.keys() & reference.keys())
    }
    mean = estimate_mean(logs, confidence=confidence)
    return Estimate(
        value=math.exp(mean.value),
        spread=_exponentiate(mean.spread),
        cell_spread=_exponentiate(mean.cell_spread),
        unit=mean.unit,
        n_pools=mean.n_pools,
        n_cells=mean.n_cells,
    )


def sum_rounds(curve: Sequence[float], *, first_round: int = 1) -> float:
    """Return the area under a learning curve, the sum over its rounds from one on.

    Round 0 is the same for all methods of a pool and a seed; counting it moves every ratio
    towards one.

    Args:
        curve: Error after each round, round 0 first.
        first_round: Where the sum begins.

    Returns:
        The sum in the unit of the errors; NaN without rounds or if one was not measured.
    """
    rounds = np.asarray(curve[first_round:], dtype=np.float64)
    if not len(rounds) or not np.isfinite(rounds).all():
        return _NAN
    return auc_of_curve(rounds)


def mean_and_band(
    curves: Mapping[Place, Sequence[float]],
) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " r"]]:
    """Average curves of the same rounds over pools and seeds, round by round.

    Args:
        curves: One for each pool and seed, (r,) each.

    Returns:
        Mean of the pool means and its standard error as in ``estimate_mean``, (r,) each; NaN
        where it is not known.

    Raises:
        ArgumentError: curves of different length.
    """
    lengths = {len(curve) for curve in curves.values()}
    if len(lengths) > 1:
        raise ArgumentError(
            f"curves have {', '.join(map(str, sorted(lengths)))} rounds; only curves of the same "
            "rounds can be averaged"
        )
    estimates = [
        estimate_mean({place: curve[i] for place, curve in curves.items()})
        for i in range(next(iter(lengths), 0))
    ]
    means = np.array([each.value for each in estimates], dtype=np.float64)
    errors = np.array([each.spread.standard_error for each in estimates], dtype=np.float64)
    return means, errors


def _log_ratio(value: float, reference: float) -> float:
    if not (math.isfinite(value) and math.isfinite(reference) and value > 0 and reference > 0):
        return _NAN
    return math.log(value / reference)


def _spread(values: Float64[np.ndarray, " n"], confidence: float) -> Spread:
    """Return standard error and t-interval of the mean of independent values."""
    from scipy.special import stdtrit  # Student's t without the half second of scipy.stats

    n = len(values)
    if n < 2:
        return Spread()
    error = float(values.std(ddof=1) / math.sqrt(n))
    reach = float(stdtrit(n - 1, 0.5 + confidence / 2)) * error
    mean = float(values.mean())
    return Spread(error, mean - reach, mean + reach)


def _exponentiate(spread: Spread) -> Spread:
    return Spread(spread.standard_error, _exp(spread.low), _exp(spread.high))


def _exp(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(value))


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ArgumentError(f"confidence is {confidence}; allowed are numbers between 0 and 1")
