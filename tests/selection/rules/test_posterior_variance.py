from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError, SelectionError
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.stored import StoredKernel
from labelwise.selection.rules import (
    linear_posterior,
    posterior_variance,
    select_batch,
    select_posterior_variance,
)
from labelwise.testing.selectors import check_selector
from tests.features.npy_rows import NpyRows
from tests.selection.rules.oracles import (
    PlainLinearKernel,
    RbfKernel,
    TanimotoKernel,
    bmdal_select,
    brute_pv,
    kernel_variance,
    noise,
    paths,
    split,
    variances_of_fifty_digits,
)

DATA = {"noise": noise, "paths": paths}
SHAPES = [(200, 40, 12), (200, 12, 40), (150, 1, 30), (150, 0, 30), (100, 30, 30)]


@pytest.mark.parametrize("normalise", ["cosine", "none"])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_variance_is_that_of_the_kernel_space_formula(data, normalise, n, m, d):
    pool, train = split(DATA[data](n + m, d, seed=1), n, normalise=normalise)
    expected = kernel_variance(pool, train, 1e-3)
    ours = posterior_variance(pool, train, chunk_size=37)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(("n", "m", "d"), [s for s in SHAPES if s[1] > 0])
def test_picks_and_scores_are_those_of_refitting(data, n, m, d):
    pool, train = split(DATA[data](n + m, d, seed=2), n)
    result = select_posterior_variance(pool, train, 60)
    picks, scores = brute_pv(pool, train, 60, 1e-3)
    assert result.pool_idx.tolist() == picks
    np.testing.assert_allclose(result.score, scores, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(("n", "m", "d", "k"), [(1000, 50, 20, 150), (700, 15, 64, 200)])
def test_picks_are_those_of_bmdal_reg(data, n, m, d, k, dtype):
    pool, train = split(DATA[data](n + m, d, seed=3).to(dtype), n)
    ours = select_posterior_variance(pool, train, k)
    assert ours.pool_idx.tolist() == bmdal_select("max-det", pool, train, k, 1e-3)


@pytest.mark.parametrize("n_active", [1, 3, 10_000])
@pytest.mark.parametrize("data", DATA)
def test_lazy_updates_give_the_same(data, n_active, monkeypatch):
    """With every structure active there is nothing lazy; with one, everything is."""
    pool, train = split(DATA[data](540, 24, seed=4), 500)
    usual = select_posterior_variance(pool, train, 150)
    monkeypatch.setattr(linear_posterior, "_LEAST_ACTIVE", n_active)
    monkeypatch.setattr(linear_posterior, "_MOST_ACTIVE", n_active)
    forced = select_posterior_variance(pool, train, 150)
    np.testing.assert_array_equal(forced.pool_idx, usual.pool_idx)
    np.testing.assert_allclose(forced.score, usual.score, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("data", DATA)
def test_float32_features_are_decided_in_float64(data):
    single = split(DATA[data](840, 48, seed=5).float(), 800)
    double = tuple(LinearKernel(k.features.double(), normalise="none") for k in single)
    ours = select_posterior_variance(*single, 250)
    exact = select_posterior_variance(*double, 250)
    np.testing.assert_array_equal(ours.pool_idx, exact.pool_idx)
    np.testing.assert_allclose(ours.score, exact.score, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("data", DATA)
def test_picks_of_rounded_features_are_near_those_of_the_unrounded(data):
    """Storing features as float32 changes a pick only where it hardly matters."""
    features = DATA[data](840, 48, seed=6)
    exact = select_posterior_variance(*split(features, 800), 100)
    rounded = select_posterior_variance(*split(features.float(), 800), 100)
    np.testing.assert_allclose(rounded.score, exact.score, rtol=1e-3)
    assert (rounded.pool_idx[:20] == exact.pool_idx[:20]).all()


@pytest.mark.parametrize("kind", ["rbf", "tanimoto", "linear without features"])
def test_pivoted_cholesky(kind):
    if kind == "tanimoto":
        bits = noise(230, 300, seed=7) > 0.5
        pool, train = TanimotoKernel(bits[:200]), TanimotoKernel(bits[200:])
        k = 10
    else:
        points = paths(230, 6, seed=7)
        pool, train = RbfKernel(points[:200]), RbfKernel(points[200:])
        k = 80
    result = select_posterior_variance(pool, train, k, chunk_size=33)
    picks, scores = brute_pv(pool, train, k, 1e-3)
    assert result.pool_idx.tolist() == picks
    np.testing.assert_allclose(result.score, scores, rtol=1e-7, atol=1e-9)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 40),
    m=st.integers(0, 12),
    d=st.integers(1, 12),
    log_regularisation=st.floats(-6, 2),
)
def test_scores_fall_and_lie_between_zero_and_the_prior(seed, n, m, d, log_regularisation):
    pool, train = split(noise(n + m, d, seed), n)
    k = max(1, n // 2)
    result = select_posterior_variance(pool, train, k, regularisation=10.0**log_regularisation)
    assert (result.score >= 0.0).all()
    assert (result.score <= 1.0 + 1e-12).all()
    assert (np.diff(result.score) <= 1e-12).all()


def test_a_picked_structure_keeps_at_most_the_noise():
    """After x is labelled its variance is σ²λ / (σ² + λ) < λ."""
    features = noise(60, 10, seed=8)
    pool = LinearKernel(features[:50])
    before = posterior_variance(pool, LinearKernel(features[50:]), regularisation=0.01)[3]
    after = posterior_variance(
        pool, LinearKernel(torch.cat([features[50:], features[3:4]])), regularisation=0.01
    )[3]
    assert float(after) == pytest.approx(float(before * 0.01 / (before + 0.01)), rel=1e-9)


def test_laws():
    check_selector(select_posterior_variance)
    check_selector(select_posterior_variance, make_kernel=RbfKernel)
    check_selector(
        select_posterior_variance, make_kernel=lambda x: LinearKernel(x, normalise="none")
    )
    check_selector(
        select_posterior_variance, make_kernel=lambda x: LinearKernel(x, dtype=torch.float32)
    )


@pytest.mark.parametrize("regularisation", [0.0, -1.0, float("nan"), float("inf")])
def test_regularisation_must_be_positive(regularisation):
    pool, train = split(noise(12, 4, 0), 9)
    with pytest.raises(SelectionError, match="allowed are finite numbers above 0"):
        select_posterior_variance(pool, train, 2, regularisation=regularisation)


@pytest.mark.parametrize("kernel", [LinearKernel, RbfKernel])
def test_regularisation_too_small_for_float64_is_said(kernel):
    features = noise(1, 30, 0).repeat(20, 1)
    with pytest.raises(SelectionError, match="too small"):
        select_posterior_variance(kernel(features), kernel(features), 2, regularisation=1e-30)


@pytest.mark.parametrize("rule", ["pv", "top", "pv from a shortlist"])
@pytest.mark.parametrize("kind", ["float64", "float32", "on disk", "no features"])
@pytest.mark.parametrize("n_train", [0, 3, 40])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_no_structure_is_picked_twice_however_small_the_noise(size, n_train, kind, rule, tmp_path):
    """Of 150 structures of rank 6 nearly all have the variance zero in the end."""
    features = size * noise(150 + n_train, 6, 1) @ noise(6, 20, 2)
    features = features.float() if kind in ("float32", "on disk") else features
    make = PlainLinearKernel if kind == "no features" else partial(LinearKernel, normalise="none")
    pool, train = make(features[:150]), make(features[150:])
    if kind == "on disk":
        np.save(tmp_path / "rows.npy", features[:150].numpy())
        pool = StoredKernel(NpyRows(tmp_path / "rows.npy", piece_bytes=5000), normalise="none")
    largest = float(pool.diagonal().max())
    n_done = 0
    for exponent in (-6, -10, -14, -16, -17, -18, -30, -200):
        lam = 1.5 * max(largest, 1.0) * 10.0**exponent
        try:
            found = select_batch(
                rule.split()[0],
                pool,
                train,
                150,
                regularisation=lam,
                shortlist=150 if "shortlist" in rule else None,
            )
        except SelectionError as error:
            assert exponent < -13
            assert "is too small: against kernel values up to" in str(error)
            continue
        n_done += 1
        assert sorted(found.pool_idx.tolist()) == list(range(150))
        assert np.isfinite(found.score).all()
        assert rule == "top" or exponent > -16
    assert n_done >= 2


@pytest.mark.parametrize("make", [LinearKernel, PlainLinearKernel])
@pytest.mark.parametrize("n_train", [4, 25])
def test_at_the_least_noise_scores_are_those_of_fifty_digits(make, n_train):
    features = noise(20 + n_train, 5, 3) @ noise(5, 12, 4)
    unit = LinearKernel(features).features
    pool, train = make(unit[:20]), make(unit[20:])
    for lam in (1e-8, 1e-12, 1e-13):
        found = select_posterior_variance(pool, train, 15, regularisation=lam)
        wanted = variances_of_fifty_digits(unit[:20], unit[20:], lam, found.pool_idx.tolist())
        for score, variances in zip(found.score, wanted, strict=True):
            assert score == pytest.approx(max(variances), abs=1e-13)


def test_kernels_of_another_kind_are_refused():
    with pytest.raises(ArgumentError, match="cannot be paired with a RbfKernel"):
        select_posterior_variance(LinearKernel(noise(9, 4, 0)), RbfKernel(noise(9, 4, 0)), 2)
