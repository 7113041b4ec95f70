from __future__ import annotations

import numpy as np
import pytest

from labelwise.errors import SelectionError
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import select_batch, select_lcmd, shortlist_by_variance
from tests.selection.rules.oracles import RbfKernel, kernel_variance, noise, paths, split


def test_the_shortlist_is_that_of_brute_force():
    pool, train = split(paths(330, 10, seed=6), 300)
    kept = shortlist_by_variance(pool, train, 70, chunk_size=41)
    expected = np.sort(np.argsort(-kernel_variance(pool, train, 1e-3))[:70])
    np.testing.assert_array_equal(kept, expected)


def test_a_shortlist_beyond_the_pool_keeps_all():
    pool, train = split(noise(12, 3, seed=0), 9)
    assert shortlist_by_variance(pool, train, 50).tolist() == list(range(9))
    with pytest.raises(SelectionError, match="shortlist=0"):
        shortlist_by_variance(pool, train, 0)


@pytest.mark.parametrize("make", [LinearKernel, RbfKernel])
def test_a_shortlist_holds_the_most_uncertain(make):
    features = paths(330, 10, seed=2)
    pool, train = make(features[:300]), make(features[300:])
    top = select_batch("top", pool, train, 40)
    within = select_batch("lcmd", pool, train, 40, shortlist=40)
    assert set(within.pool_idx) == set(top.pool_idx)
    kept = np.sort(top.pool_idx)
    alone = select_lcmd(make(features[kept]), train, 15)
    short = select_batch("lcmd", pool, train, 15, shortlist=40)
    np.testing.assert_array_equal(short.pool_idx, kept[alone.pool_idx])


@pytest.mark.parametrize("chunk_size", [1, 17, 299])
def test_a_shortlist_does_not_depend_on_the_chunk_size(chunk_size):
    pool, train = split(paths(330, 24, seed=3).float(), 300)
    whole = select_batch("lcmd", pool, train, 20, shortlist=60)
    part = select_batch("lcmd", pool, train, 20, shortlist=60, chunk_size=chunk_size)
    np.testing.assert_array_equal(part.pool_idx, whole.pool_idx)
