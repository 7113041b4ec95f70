from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelwise.selection.rules import posterior_variance, shortlist, shortlist_by_variance
from labelwise.selection.rules.linear_posterior import LinearPrior
from labelwise.selection.rules.shortlist import decide_shortlist
from labelwise.selection.rules.top import variance_order
from labelwise.selection.rules.variance_filter import RunningTop, ScoredRows, VarianceFilter
from tests.selection.rules.oracles import noise, paths, split


def sparse(n: int, d: int, seed: int) -> torch.Tensor:
    """Few entries in a row, all of them equal: roundings that are not independent."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, d, generator=generator) < 0.1).double() + 1e-3


def copies(n: int, d: int, seed: int) -> torch.Tensor:
    """Exact duplicates, and rows of half precision."""
    rows = paths(max(1, n // 5), d, seed).half().double()
    return rows.repeat(6, 1)[:n]


DATA = {"noise": noise, "paths": paths, "sparse": sparse, "copies": copies}


def in_float64(pool, train, n_keep, regularisation=1e-3):
    """The shortlist by sorting the variances, without a filter."""
    variance = posterior_variance(pool, train, regularisation=regularisation)
    return np.sort(variance_order(pool, train, variance, 4096)[:n_keep].numpy())


@pytest.mark.parametrize("normalise", ["cosine", "none"])
@pytest.mark.parametrize("regularisation", [1e-9, 1e-3, 10.0])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(("m", "d"), [(60, 24), (24, 60), (1, 30), (300, 300)])
def test_the_shortlist_is_that_of_float64(m, d, data, regularisation, normalise):
    features = DATA[data](900 + m, d, seed=1)[torch.randperm(900 + m)].float()
    pool, train = split(features, 900, normalise=normalise)
    for n_keep in (1, 100, 450, 899, 900, 2000):
        kept = shortlist_by_variance(
            pool, train, n_keep, regularisation=regularisation, chunk_size=128
        )
        np.testing.assert_array_equal(kept, in_float64(pool, train, n_keep, regularisation))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(("m", "d"), [(600, 400), (100, 400), (3, 5)])
def test_bounds_hold_with_much_to_spare(m, d, data):
    pool, train = split(DATA[data](1500 + m, d, seed=2).float(), 1500)
    prior = LinearPrior(train, 1e-3)
    exact = prior.variance(pool.features.double())
    scored = VarianceFilter(prior).score(pool.features, 0)
    middle = 0.5 * (scored.lower + scored.upper)
    half = 0.5 * (scored.upper - scored.lower)
    inside = scored.lower > 0.0
    assert ((middle - exact).abs() <= half * torch.where(inside, 0.25, 1.0)).all()
    assert scored.largest_diagonal == float(pool.diagonal().max())


def test_few_structures_are_left_open():
    pool, train = split(paths(6000, 256, seed=3).float(), 5000)
    prior = LinearPrior(train, 1e-3)
    top = RunningTop(1000)
    top.add(VarianceFilter(prior).score(pool.features, 0))
    certain, undecided, _ = top.finish(1e-12)
    assert len(certain) <= 1000 <= len(certain) + len(undecided)
    assert len(undecided) < 0.02 * len(pool)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 200),
    n_keep=st.integers(1, 60),
    spread=st.sampled_from([0.0, 1e-3, 0.3]),
    n_values=st.sampled_from([2, 20, 10_000]),
    n_pieces=st.integers(1, 9),
)
def test_what_is_open_does_not_depend_on_the_order_of_pieces(
    seed, n, n_keep, spread, n_values, n_pieces
):
    rng = np.random.default_rng(seed)
    value = torch.from_numpy(rng.integers(n_values, size=n) / n_values)
    low, high = (torch.from_numpy(spread * rng.random(n)) for _ in range(2))
    cuts = np.array_split(np.arange(n), min(n_pieces, n))
    found = []
    for _ in range(3):
        top = RunningTop(n_keep)
        top._forgets_at = 0  # forget as often as can be
        for number in rng.permutation(len(cuts)):
            rows = slice(int(cuts[number][0]), int(cuts[number][-1]) + 1)
            top.add(ScoredRows(rows.start, (value - low)[rows], (value + high)[rows], 1.0))
            top._forgets_at = 0
        found.append(top.finish(1e-12))
    certain, undecided, _ = found[0]
    for other in found[1:]:
        assert torch.equal(certain, other[0])
        assert torch.equal(undecided, other[1])
    best = set(torch.argsort(value, descending=True, stable=True)[:n_keep].tolist())
    assert set(certain.tolist()) <= best <= set(certain.tolist()) | set(undecided.tolist())


def test_a_gap_that_is_too_narrow_for_what_comes_later_is_said():
    top = RunningTop(1)
    top._forgets_at = 0
    value = torch.tensor([1.0, 1.0 - 1e-9], dtype=torch.float64)
    top.add(ScoredRows(0, value, value, 1.0))
    assert top.finish(1e-12) is not None
    assert top.finish(1e-6) is None


def test_bounds_that_do_not_hold_are_found_out(monkeypatch):
    """A filter that is wrong costs time, not the result."""
    pool, train = split(copies(500, 30, seed=4).float(), 400)
    original = VarianceFilter.score

    def off(self, rows, start, sq_norms=None):
        scored = original(self, rows, start, sq_norms)
        off_by = 3.0 * (scored.upper - scored.lower)
        return ScoredRows(
            start, scored.lower + off_by, scored.upper + off_by, scored.largest_diagonal
        )

    monkeypatch.setattr(VarianceFilter, "score", off)
    prior = LinearPrior(train, 1e-3)
    top = RunningTop(50)
    top.add(VarianceFilter(prior).score(pool.features, 0))
    assert decide_shortlist(top, prior, 50, pool.rows) is None
    np.testing.assert_array_equal(
        shortlist_by_variance(pool, train, 50), in_float64(pool, train, 50)
    )


def test_the_map_can_be_run_elsewhere_and_in_any_order():
    pool, train = split(noise(800, 40, seed=5).float(), 600)
    prior = LinearPrior(train, 1e-3)
    scores = pickle.loads(pickle.dumps(VarianceFilter(prior)))
    top = RunningTop(90)
    for part in reversed(pool.chunks(70)):
        top.add(pickle.loads(pickle.dumps(scores.score(pool.rows(part), part.start))))
    kept = decide_shortlist(top, prior, 90, pool.rows)
    np.testing.assert_array_equal(kept, in_float64(pool, train, 90))


def test_reduced_precision_products_leave_the_decision_to_float64():
    pool, train = split(paths(500, 30, seed=6).float(), 400)
    torch.set_float32_matmul_precision("medium")
    try:
        scored = VarianceFilter(LinearPrior(train, 1e-3)).score(pool.features, 0)
        kept = shortlist_by_variance(pool, train, 50)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert float((scored.upper - scored.lower).min()) > 1e-3
    np.testing.assert_array_equal(kept, in_float64(pool, train, 50))


def test_float64_features_are_not_filtered(monkeypatch):
    pool, train = split(paths(100, 8, seed=7), 80)
    monkeypatch.setattr(shortlist, "VarianceFilter", None)
    assert len(shortlist_by_variance(pool, train, 9)) == 9
    assert math.isfinite(float(posterior_variance(pool, train).sum()))
