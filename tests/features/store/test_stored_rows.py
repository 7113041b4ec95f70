from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError
from labelwise.features.representations.base import FeatureBlock
from labelwise.features.representations.normalisation import normalise_rows
from labelwise.features.store.stored_rows import (
    find_common_norms,
    find_scales,
    from_storage,
    scale_blocks,
    split_norms,
    to_storage,
)

NOTHING = np.empty((0, 8), np.float32)


def random_rows(seed: int, n: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, width)) * 10.0 ** rng.uniform(-15, 10, (n, 1))
    rows[rng.random(n) < 0.1] = 0.0
    return rows.astype(np.float32)


@given(
    seed=st.integers(0, 1000),
    n=st.integers(0, 40),
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=3),
)
def test_unit_rows_are_those_in_memory_bit_by_bit(seed: int, n: int, sizes: list[int]) -> None:
    rows = random_rows(seed, n, sum(sizes))
    before = rows.copy()
    unit, norms = split_norms(rows, [(size, 0.3) for size in sizes])
    expected = rows.copy()
    nothing = np.empty((0, sum(sizes)), np.float32)
    normalise_rows(nothing, expected, [FeatureBlock(size) for size in sizes])
    assert np.array_equal(unit.view(np.uint32), expected.view(np.uint32))
    assert np.array_equal(rows, before)
    starts = np.cumsum([0, *sizes[:-1]])
    squares = np.add.reduceat(rows.astype(np.float64) ** 2, starts, axis=1)
    np.testing.assert_allclose(norms, np.sqrt(squares), rtol=1e-14)


def test_weights_come_with_the_scales() -> None:
    blocks = ((5, 0.25), (3, 0.7))
    rows = random_rows(3, 20, 8)
    unit, _ = split_norms(rows, blocks)
    scale_blocks(unit, blocks, find_scales(blocks))
    expected = rows.copy()
    normalise_rows(NOTHING, expected, [FeatureBlock(*block) for block in blocks])
    np.testing.assert_allclose(unit, expected, rtol=2e-7)


def test_lengths_come_back() -> None:
    """``none`` from unit rows and norms is ``none`` from the rows themselves."""
    blocks = ((5, 0.25), (3, 1.0))
    train, pool = random_rows(4, 7, 8), random_rows(5, 30, 8)
    (train_unit, train_norms), (pool_unit, pool_norms) = (
        split_norms(rows, blocks) for rows in (train, pool)
    )
    common = find_common_norms(train_norms, pool_norms)
    scale_blocks(train_unit, blocks, find_scales(blocks, train_norms, common))
    scale_blocks(pool_unit, blocks, find_scales(blocks, pool_norms, common))
    normalise_rows(train, pool, [FeatureBlock(*block) for block in blocks], normalise="none")
    np.testing.assert_allclose(train_unit, train, rtol=3e-7, atol=1e-37)
    np.testing.assert_allclose(pool_unit, pool, rtol=3e-7, atol=1e-37)


def test_common_norms_of_nothing_and_of_zeros() -> None:
    assert find_common_norms(np.zeros((0, 2))).tolist() == [0.0, 0.0]
    blocks = ((8, 1.0),)
    zeros = np.zeros((3, 8), np.float32)
    scale_blocks(zeros, blocks, find_scales(blocks, np.zeros((3, 1)), np.zeros(1)))
    assert not zeros.any()
    with pytest.raises(ArgumentError, match="at least one set"):
        find_common_norms()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused(bad: float) -> None:
    rows = random_rows(0, 6, 8)
    rows[4, 7] = bad
    with pytest.raises(ArgumentError, match=r"row 4 .* not finite"):
        split_norms(rows, ((5, 1.0), (3, 1.0)))


def test_blocks_must_make_up_the_rows() -> None:
    with pytest.raises(ArgumentError, match=r"\[5, 2\] entries, the rows 8"):
        split_norms(random_rows(0, 6, 8), ((5, 1.0), (2, 1.0)))


@pytest.mark.parametrize(
    ("storage_dtype", "kept", "oracle"),
    [
        ("float32", np.float32, torch.float32),
        ("float16", np.float16, torch.float16),
        ("bfloat16", np.uint16, torch.bfloat16),
    ],
)
def test_rounding_is_that_of_torch(
    storage_dtype: str, kept: type[np.generic], oracle: torch.dtype
) -> None:
    rows, _ = split_norms(random_rows(1, 50, 8), ((8, 1.0),))
    stored = to_storage(rows, storage_dtype)
    assert stored.dtype == kept
    back = from_storage(stored, storage_dtype)
    assert np.array_equal(back, torch.from_numpy(rows).to(oracle).to(torch.float32).numpy())
    assert (
        np.abs(back - rows).max()
        < {"float32": 1e-30, "float16": 3e-4, "bfloat16": 2e-3}[storage_dtype]
    )
