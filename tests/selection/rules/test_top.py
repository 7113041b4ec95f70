from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.errors import SelectionError
from labelwise.selection.rules import select_top, select_top_variance
from tests.selection.rules.oracles import bmdal_select, kernel_variance, noise, paths, split


@pytest.mark.parametrize("as_array", [np.asarray, torch.tensor])
def test_highest_scores_come_first_and_equals_in_pool_order(as_array):
    result = select_top(as_array([1.0, 3.0, -2.0, 3.0, 1.0]), 4)
    assert result.pool_idx.tolist() == [1, 3, 0, 4]
    assert result.score.tolist() == [3.0, 3.0, 1.0, 1.0]
    assert (result.pool_idx.dtype, result.score.dtype) == (np.int64, np.float64)


def test_scores_are_not_modified():
    score = np.array([1.0, 2.0])
    select_top(score, 1).score[0] = 9.0
    assert score.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("score", "n_select", "message"),
    [
        ([1.0, np.nan], 1, "score of structure 1 is nan"),
        ([np.inf, 0.0], 1, "score of structure 0 is inf"),
        ([[1.0]], 1, r"shape \(1, 1\)"),
        ([1.0, 2.0], 3, "allowed are 1 to 2"),
        ([1.0, 2.0], 0, "allowed are 1 to 2"),
        ([], 1, "the pool is empty"),
    ],
)
def test_arguments_are_checked(score, n_select, message):
    with pytest.raises(SelectionError, match=message):
        select_top(np.array(score), n_select)


@pytest.mark.parametrize("data", [noise, paths])
def test_top_variance_is_not_conditioned_on_the_picks(data):
    pool, train = split(data(330, 12, seed=1), 300)
    result = select_top_variance(pool, train, 50)
    variance = kernel_variance(pool, train, 1e-3)
    assert result.pool_idx.tolist() == np.argsort(-variance, kind="stable")[:50].tolist()
    np.testing.assert_allclose(result.score, variance[result.pool_idx], rtol=1e-8)


def test_top_variance_is_the_max_diag_of_bmdal_reg():
    pool, train = split(noise(330, 12, seed=2), 300)
    expected = bmdal_select("max-diag", pool, train, 50, 1e-3)[::-1]  # ascending there
    assert select_top_variance(pool, train, 50).pool_idx.tolist() == expected
