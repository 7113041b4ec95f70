from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError, SelectionError
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import nearest_centre, select_k_center
from labelwise.testing.selectors import check_selector
from tests.selection.rules.oracles import (
    RbfKernel,
    TanimotoKernel,
    bmdal_select,
    brute_k_center,
    noise,
    paths,
    split,
)

DATA = {"noise": noise, "paths": paths}


@pytest.mark.parametrize("normalise", ["cosine", "none"])
@pytest.mark.parametrize("data", DATA)
def test_picks_are_those_of_brute_force(data, normalise):
    pool, train = split(DATA[data](330, 12, seed=1), 300, normalise=normalise)
    result = select_k_center(pool, train, 120)
    picks, scores = brute_k_center(pool, train, 120)
    assert result.pool_idx.tolist() == picks
    np.testing.assert_allclose(result.score, scores, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(("n", "m", "d", "k"), [(1000, 50, 20, 150), (700, 5, 64, 200)])
def test_picks_are_those_of_bmdal_reg(data, n, m, d, k, dtype):
    pool, train = split(DATA[data](n + m, d, seed=2).to(dtype), n)
    assert select_k_center(pool, train, k).pool_idx.tolist() == bmdal_select(
        "max-dist", pool, train, k, 1
    )


def test_first_pick_without_labels_is_the_largest_norm():
    pool, train = split(noise(400, 10, seed=3), 400, normalise="none")
    result = select_k_center(pool, train, 60)
    first = int(pool.diagonal().argmax())
    rest = bmdal_select(
        "max-dist", pool, LinearKernel(pool.features[[first]], normalise="none"), 59, 1
    )
    assert result.pool_idx.tolist() == [first, *rest]


@pytest.mark.parametrize("fraction", [0.0, 1.0])
@pytest.mark.parametrize("data", DATA)
def test_triangle_inequality_and_filter_give_the_same(data, fraction, monkeypatch):
    """0 computes a whole column for every pick, 1 only what the inequality lets move."""
    pool, train = split(DATA[data](640, 16, seed=4).float(), 600)
    usual = select_k_center(pool, train, 200)
    monkeypatch.setattr(nearest_centre, "_FULL_COLUMN_FRACTION", fraction)
    forced = select_k_center(pool, train, 200)
    np.testing.assert_array_equal(forced.pool_idx, usual.pool_idx)
    np.testing.assert_allclose(forced.score, usual.score, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("data", DATA)
def test_float32_features_are_decided_in_float64(data):
    single = split(DATA[data](840, 48, seed=5).float(), 800)
    double = tuple(LinearKernel(k.features.double(), normalise="none") for k in single)
    ours, exact = select_k_center(*single, 250), select_k_center(*double, 250)
    np.testing.assert_array_equal(ours.pool_idx, exact.pool_idx)
    np.testing.assert_allclose(ours.score, exact.score, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", ["rbf", "tanimoto"])
def test_kernels_without_features(kind):
    if kind == "rbf":
        points = paths(220, 6, seed=6)
        pool, train = RbfKernel(points[:200]), RbfKernel(points[200:])
    else:
        bits = noise(220, 64, seed=6) > 1.0
        pool, train = TanimotoKernel(bits[:200]), TanimotoKernel(bits[200:])
    result = select_k_center(pool, train, 80, chunk_size=33)
    picks, scores = brute_k_center(pool, train, 80)
    if kind == "rbf":
        assert result.pool_idx.tolist() == picks
        np.testing.assert_allclose(result.score, scores, rtol=1e-10, atol=1e-12)
    else:  # ratios of small integers: ties are many, and broken by pool order
        assert result.pool_idx[0] == picks[0]
        assert result.score[0] == pytest.approx(scores[0], abs=1e-7)


def test_duplicated_labelled_structures_belong_to_the_first():
    features = paths(300, 10, seed=7)
    pool, once = LinearKernel(features[:280]), features[280:]
    twice = LinearKernel(torch.cat([once, once, once]))
    single, double = select_k_center(pool, LinearKernel(once), 90), select_k_center(pool, twice, 90)
    np.testing.assert_array_equal(single.pool_idx, double.pool_idx)


def test_radius_is_within_twice_the_best():
    """Gonzalez's bound, against the best of all choices of three centres."""
    points = noise(16, 2, seed=8)
    pool = LinearKernel(points, normalise="none")
    picks = select_k_center(pool, LinearKernel(points[:0], normalise="none"), 3).pool_idx
    gaps = torch.cdist(points, points).numpy()
    best = min(gaps[:, list(c)].min(axis=1).max() for c in combinations(range(16), 3))
    assert gaps[:, picks].min(axis=1).max() <= 2.0 * best


def test_score_is_the_radius_that_is_left():
    pool, train = split(paths(330, 12, seed=9), 300)
    score = select_k_center(pool, train, 300).score
    assert (np.diff(score) <= 1e-12).all()


def test_laws():
    check_selector(select_k_center)
    check_selector(select_k_center, make_kernel=RbfKernel)
    check_selector(select_k_center, make_kernel=lambda x: LinearKernel(x, normalise="none"))
    check_selector(select_k_center, make_kernel=lambda x: LinearKernel(x, dtype=torch.float32))


def test_kernels_of_another_width_are_refused():
    with pytest.raises(ArgumentError, match="differ in width: 4 and 5"):
        select_k_center(LinearKernel(noise(9, 4, 0)), LinearKernel(noise(9, 5, 0)), 2)


def test_non_finite_kernel_values_are_refused():
    points = noise(20, 3, seed=0)
    points[7] = torch.nan
    for train in (noise(4, 3, seed=1), points[:0]):
        with pytest.raises(SelectionError, match="not finite"):
            select_k_center(RbfKernel(points), RbfKernel(train), 3)
