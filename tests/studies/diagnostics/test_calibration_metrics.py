"""Calibration metrics against SciPy, uncertainty-toolbox and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr

from labelwise.errors import ArgumentError
from labelwise.studies.diagnostics.calibration_metrics import (
    DEFAULT_LEVELS,
    expected_calibration_error,
    expected_normalised_calibration_error,
    gaussian_nll,
    interval_coverage,
    mean_and_deviation,
    measure_calibration,
)


@pytest.fixture
def sample(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Errors about a third larger than predicted, eV."""
    std = rng.uniform(0.01, 0.3, 173)
    return rng.normal(scale=1.3 * std), std


def test_nll_and_coverage_are_scipys(sample: tuple[np.ndarray, np.ndarray]) -> None:
    errors, std = sample
    assert gaussian_nll(errors, std) == pytest.approx(-norm.logpdf(errors, scale=std).mean())
    low, high = norm.interval(np.array(DEFAULT_LEVELS)[:, None], scale=std)
    inside = ((low <= errors) & (errors <= high)).mean(axis=1)
    np.testing.assert_array_equal(interval_coverage(errors, std), inside)
    expected = sum(abs(p - q) for p, q in zip(inside, DEFAULT_LEVELS, strict=True)) / 19
    assert expected_calibration_error(errors, std) == pytest.approx(expected)


@pytest.mark.parametrize("n_bins", [1, 7, 10, 173])
def test_ence_is_a_plain_loops(sample: tuple[np.ndarray, np.ndarray], n_bins: int) -> None:
    errors, std = sample
    pairs = sorted(zip(std, errors, strict=True))
    n_larger, size = len(pairs) % n_bins, len(pairs) // n_bins
    terms = []
    for place in range(n_bins):
        members = [pairs.pop(0) for _ in range(size + (place < n_larger))]
        rmv = math.sqrt(sum(s**2 for s, _ in members) / len(members))
        rmse = math.sqrt(sum(e**2 for _, e in members) / len(members))
        terms.append(abs(rmv - rmse) / rmv)
    assert pairs == []
    ence = expected_normalised_calibration_error(errors, std, n_bins=n_bins)
    assert ence == pytest.approx(sum(terms) / n_bins)


def test_uncertainty_toolbox_agrees(sample: tuple[np.ndarray, np.ndarray]) -> None:
    pytest.importorskip("uncertainty_toolbox")
    from uncertainty_toolbox import metrics_calibration, metrics_scoring_rule

    errors, std = sample
    zeros, n = np.zeros_like(errors), 101
    theirs = metrics_calibration.mean_absolute_calibration_error(
        zeros, std, errors, num_bins=n, prop_type="interval"
    )
    # Theirs counts the levels 0 and 1, where both coverages agree.
    levels = np.linspace(0, 1, n)[1:-1].tolist()
    ours = expected_calibration_error(errors, std, levels)
    assert ours * (n - 2) / n == pytest.approx(theirs)
    assert gaussian_nll(errors, std) == pytest.approx(
        metrics_scoring_rule.nll_gaussian(zeros, std, errors)
    )
    assert measure_calibration(errors, std).sharpness == pytest.approx(
        metrics_calibration.sharpness(std)
    )


def test_all_measures_together(sample: tuple[np.ndarray, np.ndarray]) -> None:
    errors, std = sample
    found = measure_calibration(errors, std, n_bins=5)
    assert found.nll == gaussian_nll(errors, std)
    assert found.ence == expected_normalised_calibration_error(errors, std, n_bins=5)
    assert found.coverage == found.coverages[DEFAULT_LEVELS.index(0.9)]
    assert found.rmse == pytest.approx(np.linalg.norm(errors) / math.sqrt(173))
    assert found.mae == pytest.approx(np.linalg.norm(errors, ord=1) / 173)
    assert found.rank_correlation == pytest.approx(spearmanr(std, np.abs(errors)).statistic)
    assert math.isnan(measure_calibration(errors, np.full(173, 0.1)).rank_correlation)


def test_true_deviations_are_calibrated_and_half_of_them_are_not() -> None:
    rng = np.random.default_rng(3)
    std = rng.uniform(0.5, 2.0, 40_000)
    errors = rng.normal(scale=std)
    right, narrow = measure_calibration(errors, std), measure_calibration(errors, std / 2)
    assert (
        right.ece < 0.005 and right.ence < 0.02 and right.coverage == pytest.approx(0.9, abs=0.01)
    )
    assert narrow.coverage == pytest.approx(2 * norm.cdf(norm.ppf(0.95) / 2) - 1, abs=0.01)
    assert narrow.ence == pytest.approx(1.0, abs=0.02)
    assert narrow.nll > right.nll


def test_few_structures_a_bin_make_the_ence_large() -> None:
    """With m a bin it is about 0.56/√m without any miscalibration, as the docstring says."""
    rng = np.random.default_rng(5)
    errors = rng.normal(size=20_000)
    ence = expected_normalised_calibration_error(errors, np.ones(20_000), n_bins=1000)
    assert ence == pytest.approx(0.56 / math.sqrt(20), rel=0.05)


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_units_change_the_likelihood_alone(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    std = rng.uniform(0.1, 1.0, 40)
    errors = rng.normal(scale=std)
    one, other = measure_calibration(errors, std), measure_calibration(scale * errors, scale * std)
    assert other.nll == pytest.approx(one.nll + math.log(scale), abs=1e-9)
    assert other.rmse == pytest.approx(scale * one.rmse)
    assert other.ence == pytest.approx(one.ence)
    assert other.coverages == pytest.approx(one.coverages, abs=1 / 40 + 1e-9)


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([1.0, 2.0, math.nan, 6.0]) == pytest.approx((3.0, math.sqrt(7.0)))
    mean, deviation = mean_and_deviation([2.0])
    assert mean == 2.0 and math.isnan(deviation)
    assert np.isnan(mean_and_deviation([math.nan])).all()


@pytest.mark.parametrize(
    "errors,std,message",
    [
        ([], [], r"n >= 1"),
        ([0.1, np.nan], [1.0, 1.0], r"errors\[1\] is not finite"),
        ([0.1, 0.2], [1.0, 0.0], r"std\[1\] is 0.0"),
        ([0.1, 0.2], [np.inf, 1.0], r"std\[0\] is inf"),
    ],
)
def test_what_is_no_gaussian(errors: list[float], std: list[float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        gaussian_nll(np.array(errors, dtype=np.float64), np.array(std, dtype=np.float64))


def test_levels_and_bins_out_of_range() -> None:
    ones = np.ones(4)
    for levels in ((), (0.0, 0.5), (1.0,)):
        with pytest.raises(ArgumentError, match="levels"):
            interval_coverage(ones, ones, levels)
    for n_bins in (0, 5):
        with pytest.raises(ArgumentError, match=r"n_bins is .* 1 to the number of structures, 4"):
            expected_normalised_calibration_error(ones, ones, n_bins=n_bins)
