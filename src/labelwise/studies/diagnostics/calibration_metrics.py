"""Whether predicted standard deviations are as large as the errors: pure array functions.

All take ``errors``, (n,) float64, label minus predicted mean, and ``std``, (n,) float64, the
predicted standard deviations σ > 0, and raise ArgumentError for values out of range or not
finite and for shapes that differ. Both may be in any unit, the same for both; the negative log
likelihood and the sharpness depend on it, all else is dimensionless.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64

from labelwise.errors import ArgumentError
from labelwise.finetuning.metrics import mean_absolute, root_mean_square, spearman
from labelwise.studies.diagnostics.settings import DEFAULT_N_BINS

#: Nominal coverages of the central intervals that are looked at: 5 %, 10 %, …, 95 %. A finer
#: grid tells no more: the s.d. of an empirical coverage is 0.04 at 175 structures.
DEFAULT_LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))
#: Nominal coverage of the interval that is reported by itself.
REPORTED_LEVEL = 0.9


@dataclass(frozen=True)
class CalibrationMetrics:
    """How good a Gaussian prediction is.

    Attributes:
        nll: Mean Gaussian negative log likelihood, nats, with errors in the unit given.
        ece: Expected calibration error of the coverages, dimensionless.
        ence: Expected normalised calibration error of the standard deviations, dimensionless.
        coverage: Part of the errors inside the central 90 % interval.
        rmse: Root mean square error, in the unit given.
        mae: Mean absolute error, in the unit given.
        sharpness: Root mean predicted variance, in the unit given.
        rank_correlation: Spearman's, of the standard deviation with the absolute error; NaN if
            one of them does not vary.
        coverages: Part of the errors inside the central interval of each of ``DEFAULT_LEVELS``.
    """

    nll: float
    ece: float
    ence: float
    coverage: float
    rmse: float
    mae: float
    sharpness: float
    rank_correlation: float
    coverages: tuple[float, ...]


def measure_calibration(
    errors: Float64[np.ndarray, " n"],
    std: Float64[np.ndarray, " n"],
    *,
    n_bins: int = DEFAULT_N_BINS,
) -> CalibrationMetrics:
    """Measure a Gaussian prediction in every way that there is here.

    Args:
        errors: (n,), n >= 2.
        std: (n,).
        n_bins: Of the expected normalised calibration error, 1 <= n_bins <= n.
    """
    return CalibrationMetrics(
        nll=gaussian_nll(errors, std),
        ece=expected_calibration_error(errors, std),
        ence=expected_normalised_calibration_error(errors, std, n_bins=n_bins),
        coverage=float(interval_coverage(errors, std, (REPORTED_LEVEL,))[0]),
        rmse=root_mean_square(errors),
        mae=mean_absolute(errors),
        sharpness=root_mean_square(std),
        rank_correlation=spearman(std, np.abs(errors)),
        coverages=tuple(interval_coverage(errors, std, DEFAULT_LEVELS).tolist()),
    )


def gaussian_nll(errors: Float64[np.ndarray, " n"], std: Float64[np.ndarray, " n"]) -> float:
    """Return the mean of ½ ln 2πσ² + e²/2σ², in nats.

    It is that of a density, so it depends on the unit: errors in meV give ln 1000 more than
    errors in eV.
    """
    _check(errors, std)
    return float(np.mean(0.5 * np.log(2 * np.pi) + np.log(std) + 0.5 * (errors / std) ** 2))


def interval_coverage(
    errors: Float64[np.ndarray, " n"],
    std: Float64[np.ndarray, " n"],
    levels: Sequence[float] = DEFAULT_LEVELS,
) -> Float64[np.ndarray, " L"]:
    """Return which part of the errors lies in the central interval of each nominal coverage.

    Args:
        errors: (n,).
        std: (n,).
        levels: L nominal coverages p, 0 < p < 1: the interval is |e| <= σ Φ⁻¹((1 + p)/2).

    Returns:
        (L,) float64, 0 to 1.
    """
    _check(errors, std)
    if len(levels) == 0 or not all(0.0 < level < 1.0 for level in levels):
        raise ArgumentError(f"levels are {tuple(levels)}; allowed are numbers between 0 and 1")
    half_widths = np.array([NormalDist().inv_cdf(0.5 + 0.5 * level) for level in levels])
    inside: Float64[np.ndarray, " L"] = np.zeros(len(levels))
    inside[:] = (np.abs(errors / std)[:, None] <= half_widths).mean(axis=0)
    return inside


def expected_calibration_error(
    errors: Float64[np.ndarray, " n"],
    std: Float64[np.ndarray, " n"],
    levels: Sequence[float] = DEFAULT_LEVELS,
) -> float:
    """Return the mean over levels of |nominal − empirical coverage|, 0 to 1.

    Args:
        errors: (n,).
        std: (n,).
        levels: Nominal coverages of central intervals.

    Source: Kuleshov, Fenner and Ermon, ICML 2018, with absolute differences and central
    intervals in place of quantiles.
    """
    return float(np.mean(np.abs(interval_coverage(errors, std, levels) - np.array(levels))))


def expected_normalised_calibration_error(
    errors: Float64[np.ndarray, " n"],
    std: Float64[np.ndarray, " n"],
    *,
    n_bins: int = DEFAULT_N_BINS,
) -> float:
    """Return the mean over bins of |RMV − RMSE| / RMV, dimensionless.

    Structures are sorted by standard deviation (those of equal ones keep their order) and cut
    into bins of equal count, the first ones one larger where n is no multiple. RMV is a bin's
    root mean predicted variance, RMSE its root mean square error. Few structures a bin make
    it large without any miscalibration: with m of them, by about 0.56/√m.

    Args:
        errors: (n,).
        std: (n,).
        n_bins: 1 <= n_bins <= n.

    Source: Levi, Gispan, Giladi and Fetaya, Sensors 22 (2022) 5540.
    """
    _check(errors, std)
    if not 1 <= n_bins <= len(errors):
        raise ArgumentError(
            f"n_bins is {n_bins}; allowed is 1 to the number of structures, {len(errors)}"
        )
    order = np.argsort(std, kind="stable")
    bins = np.array_split(order, n_bins)
    rmv = np.array([root_mean_square(std[members]) for members in bins])
    rmse = np.array([root_mean_square(errors[members]) for members in bins])
    return float(np.mean(np.abs(rmv - rmse) / rmv))


def _check(errors: np.ndarray, std: np.ndarray) -> None:
    """Raise unless errors and standard deviations can belong to a Gaussian."""
    if errors.shape != std.shape or errors.ndim != 1 or errors.size == 0:
        raise ArgumentError(
            f"errors and std have shapes {errors.shape} and {std.shape}; allowed is (n,) for "
            "both with n >= 1"
        )
    if not np.isfinite(errors).all():
        raise ArgumentError(f"errors[{_first(~np.isfinite(errors))}] is not finite")
    bad = ~(np.isfinite(std) & (std > 0))
    if bad.any():
        place = _first(bad)
        raise ArgumentError(
            f"std[{place}] is {std[place]}; allowed are finite numbers > 0: a Gaussian without "
            "width has no likelihood (are the residuals all equal, or does the kernel vanish?)"
        )


def _first(mask: np.ndarray) -> int:
    return int(np.flatnonzero(mask)[0])


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation, NaN where there is none."""
    known = np.array([value for value in values if not math.isnan(value)])
    if known.size == 0:
        return math.nan, math.nan
    return float(known.mean()), float(known.std(ddof=1)) if known.size > 1 else math.nan
