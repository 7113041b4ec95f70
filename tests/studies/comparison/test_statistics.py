"""Means, ratios and intervals against SciPy and sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from labelwise.errors import ArgumentError
from labelwise.studies.comparison.statistics import (
    Place,
    estimate_mean,
    estimate_ratio,
    mean_and_band,
    sum_rounds,
)

PLACES = [(pool, seed) for pool in ("a", "b", "c") for seed in (0, 1)]


def draw(rng: np.random.Generator, places: list[Place] = PLACES) -> dict[Place, float]:
    return dict(zip(places, rng.lognormal(3.0, 0.5, len(places)).tolist(), strict=True))


def test_spread_over_pools_is_the_t_interval_of_the_pool_means(rng: np.random.Generator) -> None:
    values = draw(rng)
    means = [(values[pool, 0] + values[pool, 1]) / 2 for pool in "abc"]
    found = estimate_mean(values)
    low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    assert found.value == pytest.approx(np.mean(means))
    assert found.spread.standard_error == pytest.approx(stats.sem(means))
    assert (found.spread.low, found.spread.high) == pytest.approx((low, high))
    assert (found.unit, found.n_pools, found.n_cells) == ("pools", 3, 6)


def test_spread_over_cells_is_the_t_interval_of_all_values(rng: np.random.Generator) -> None:
    values = draw(rng)
    cells = list(values.values())
    found = estimate_mean(values, confidence=0.9).cell_spread
    low, high = stats.t.interval(0.9, 5, np.mean(cells), stats.sem(cells))
    assert found.standard_error == pytest.approx(stats.sem(cells))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_pools_weigh_the_same_however_many_seeds_they_have() -> None:
    found = estimate_mean({("a", 0): 1.0, ("a", 1): 3.0, ("a", 2): 5.0, ("b", 0): 7.0})
    assert found.value == 5.0
    assert found.spread.standard_error == pytest.approx(2.0)  # of 3 and 7


def test_one_pool_takes_its_spread_over_seeds(rng: np.random.Generator) -> None:
    values = draw(rng, [("a", seed) for seed in range(4)])
    found = estimate_mean(values)
    assert found.unit == "seeds"
    assert found.spread == found.cell_spread
    assert found.spread.standard_error == pytest.approx(stats.sem(list(values.values())))


def test_one_seed_a_pool_takes_its_spread_over_pools(rng: np.random.Generator) -> None:
    values = draw(rng, [(pool, 0) for pool in "abc"])
    found = estimate_mean(values)
    assert found.unit == "pools"
    assert found.spread.standard_error == pytest.approx(stats.sem(list(values.values())))


def test_one_value_has_no_spread() -> None:
    found = estimate_mean({("a", 0): 2.0})
    assert found.value == 2.0
    assert all(map(math.isnan, (found.spread.standard_error, found.spread.low, found.spread.high)))


def test_no_values_are_not_zero() -> None:
    found = estimate_mean({})
    assert math.isnan(found.value)
    assert found.n_cells == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_failed_campaign_is_not_left_out_of_the_mean(bad: float) -> None:
    found = estimate_mean({("a", 0): 1.0, ("a", 1): bad})
    assert math.isnan(found.value)
    assert math.isnan(found.spread.low)
    assert found.n_cells == 2


def test_equal_values_have_no_width() -> None:
    found = estimate_mean(dict.fromkeys(PLACES, 4.0))
    assert (found.value, found.spread.low, found.spread.high) == (4.0, 4.0, 4.0)


def test_ratio_over_cells_is_the_paired_t_test_of_logarithms(rng: np.random.Generator) -> None:
    method, reference = draw(rng), draw(rng)
    found = estimate_ratio(method, reference)
    logs = [np.log([each[place] for place in PLACES]) for each in (method, reference)]
    interval = stats.ttest_rel(*logs).confidence_interval(0.95)
    assert found.value == pytest.approx(stats.gmean(np.exp(logs[0] - logs[1])))
    assert found.cell_spread.low == pytest.approx(math.exp(interval.low))
    assert found.cell_spread.high == pytest.approx(math.exp(interval.high))


def test_ratio_over_pools_is_the_paired_t_test_of_pool_means(rng: np.random.Generator) -> None:
    method, reference = draw(rng), draw(rng)
    found = estimate_ratio(method, reference)
    logs = [
        np.log([each[place] for place in PLACES]).reshape(3, 2).mean(axis=1)
        for each in (method, reference)
    ]
    interval = stats.ttest_rel(*logs).confidence_interval(0.95)
    assert found.spread.low == pytest.approx(math.exp(interval.low))
    assert found.spread.high == pytest.approx(math.exp(interval.high))


def test_ratio_takes_pairs_only() -> None:
    method = {("a", 0): 2.0, ("a", 1): 8.0, ("b", 0): 100.0}
    reference = {("a", 0): 4.0, ("a", 1): 4.0, ("c", 0): 1.0}
    found = estimate_ratio(method, reference)
    assert found.value == pytest.approx(1.0)  # half and twice
    assert (found.n_pools, found.n_cells) == (1, 2)


def test_ratio_without_pairs_is_unknown() -> None:
    found = estimate_ratio({("a", 0): 1.0}, {("b", 0): 1.0})
    assert math.isnan(found.value)
    assert found.n_cells == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_ratio_of_what_has_no_logarithm_is_unknown(bad: float) -> None:
    assert math.isnan(estimate_ratio({("a", 0): bad}, {("a", 0): 1.0}).value)
    assert math.isnan(estimate_ratio({("a", 0): 1.0}, {("a", 0): bad}).value)


positive = st.floats(1e-3, 1e3)


@given(st.lists(st.tuples(positive, positive), min_size=6, max_size=6), positive)
def test_ratio_knows_no_unit_and_inverts(pairs: list[tuple[float, float]], unit: float) -> None:
    method = {place: pair[0] for place, pair in zip(PLACES, pairs, strict=True)}
    reference = {place: pair[1] for place, pair in zip(PLACES, pairs, strict=True)}
    found = estimate_ratio(method, reference)
    scaled = estimate_ratio(
        {p: v * unit for p, v in method.items()}, {p: v * unit for p, v in reference.items()}
    )
    inverse = estimate_ratio(reference, method)
    assert scaled.value == pytest.approx(found.value, rel=1e-9)
    assert inverse.value == pytest.approx(1 / found.value, rel=1e-9)
    assert inverse.spread.low == pytest.approx(1 / found.spread.high, rel=1e-6)


def test_interval_over_pools_covers_what_it_says(rng: np.random.Generator) -> None:
    """In 2,000 studies of three pools with two seeds; that over all cells covers far less."""
    hits = cell_hits = 0
    for _ in range(2000):
        pools = rng.normal(0.0, 0.3, 3)
        logs = np.repeat(pools, 2) + rng.normal(0.0, 0.05, 6)
        found = estimate_mean(dict(zip(PLACES, logs.tolist(), strict=True)))
        hits += found.spread.low < 0.0 < found.spread.high
        cell_hits += found.cell_spread.low < 0.0 < found.cell_spread.high
    assert 0.93 < hits / 2000 < 0.97
    assert cell_hits / 2000 < 0.85


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.1, 95.0])
def test_confidence_out_of_range(confidence: float) -> None:
    with pytest.raises(ArgumentError, match="confidence is"):
        estimate_mean({("a", 0): 1.0}, confidence=confidence)


def test_sum_leaves_out_the_common_round() -> None:
    assert sum_rounds([100.0, 3.0, 2.0]) == 5.0
    assert sum_rounds([100.0, 3.0, 2.0], first_round=0) == 105.0


@pytest.mark.parametrize("curve", [[], [1.0], [1.0, math.nan], [1.0, math.inf, 2.0]])
def test_sum_of_what_was_not_measured_is_unknown(curve: list[float]) -> None:
    assert math.isnan(sum_rounds(curve))


def test_a_missing_common_round_does_not_matter() -> None:
    assert sum_rounds([math.nan, 3.0, 2.0]) == 5.0


def test_band_is_the_standard_error_over_pool_means(rng: np.random.Generator) -> None:
    curves = {place: tuple(rng.uniform(1, 2, 5)) for place in PLACES}
    mean, error = mean_and_band(curves)
    stacked = np.array([curves[place] for place in PLACES]).reshape(3, 2, 5).mean(axis=1)
    np.testing.assert_allclose(mean, stacked.mean(axis=0))
    np.testing.assert_allclose(error, stats.sem(stacked, axis=0))


def test_band_of_one_curve_is_unknown() -> None:
    mean, error = mean_and_band({("a", 0): (3.0, 2.0)})
    assert mean.tolist() == [3.0, 2.0]
    assert np.isnan(error).all()


def test_curves_of_other_rounds_are_not_averaged() -> None:
    with pytest.raises(ArgumentError, match="2, 3 rounds"):
        mean_and_band({("a", 0): (3.0, 2.0), ("a", 1): (3.0, 2.0, 1.0)})


def test_no_curves_give_no_rounds() -> None:
    mean, error = mean_and_band({})
    assert mean.shape == error.shape == (0,)
