"""The kit must catch the mistakes that it was written for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.errors import SelectionError
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import Selection, select_k_center, select_random
from labelwise.testing.selectors import check_selector


def _ignores_train(pool, train, n_select, *, chunk_size=64):
    none = LinearKernel(train.features[:0])
    return select_k_center(pool, none, n_select, chunk_size=chunk_size)


def _unseeded(pool, train, n_select, *, chunk_size=64):
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    return select_random(len(pool), n_select, seed=seed)


def _writes_to_the_features(pool, train, n_select, *, chunk_size=64):
    result = select_k_center(pool, train, n_select, chunk_size=chunk_size)
    pool.features[result.pool_idx[0]] *= 0.5
    return result


def _fills_up(pool, train, n_select, *, chunk_size=64):
    return select_k_center(pool, train, min(n_select, len(pool)), chunk_size=chunk_size)


def _repeats(pool, train, n_select, *, chunk_size=64):
    result = select_k_center(pool, train, n_select, chunk_size=chunk_size)
    return Selection(np.full(n_select, result.pool_idx[0]), result.score)


def _per_chunk(pool, train, n_select, *, chunk_size=4096):
    """Takes from the first chunk before it looks at the next."""
    picks, start = [], 0
    if not 1 <= n_select <= len(pool):
        raise SelectionError(f"allowed are 1 to {len(pool)}")
    while len(picks) < n_select:
        rows = torch.arange(start, min(start + max(chunk_size, 1), len(pool)))
        count = min(len(rows), n_select - len(picks))
        picks += (start + select_k_center(pool.take(rows), train, count).pool_idx).tolist()
        start += len(rows)
    return Selection.from_lists(picks, [0.0] * n_select)


def _first_rows(pool, train, n_select, *, chunk_size=64):
    select_k_center(pool, train, n_select)
    return Selection(np.arange(n_select), np.zeros(n_select))


def _unlabelled_fails(pool, train, n_select, *, chunk_size=64):
    if len(train) == 0:
        raise SelectionError("nothing labelled")
    return select_k_center(pool, train, n_select, chunk_size=chunk_size)


def _wrong_type(pool, train, n_select, *, chunk_size=64):
    result = select_k_center(pool, train, n_select, chunk_size=chunk_size)
    object.__setattr__(result, "pool_idx", result.pool_idx.astype(np.int32))
    return result


@pytest.mark.parametrize(
    ("select", "law"),
    [
        (_ignores_train, "uses the training set"),
        (_unseeded, "reproducible"),
        (_writes_to_the_features, "inputs unmodified"),
        (_fills_up, "out of range"),
        (_repeats, "result"),
        (_per_chunk, "chunk size"),
        (_first_rows, "uses the training set"),
        (_wrong_type, "result"),
    ],
)
def test_a_broken_rule_is_caught_by_the_law_it_breaks(select, law):
    with pytest.raises(AssertionError, match=f"law '{law}' is broken"):
        check_selector(select)


def test_a_rule_that_needs_labels_is_caught():
    with pytest.raises(SelectionError, match="nothing labelled"):
        check_selector(_unlabelled_fails)


def test_a_rule_that_depends_on_the_order_is_caught():
    with pytest.raises(AssertionError, match="law 'order of files' is broken"):
        check_selector(_first_rows, uses_train=False)
