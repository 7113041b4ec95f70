from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError
from labelwise.features.representations import FeatureBlock, normalise_rows
from labelwise.kernels.linear import LinearKernel

BLOCKS = (FeatureBlock(5, 0.3), FeatureBlock(12, 0.7))


def make_rows(n_rows: int, d: int = 17, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, d)) * rng.lognormal(sigma=2.0, size=(n_rows, 1))
    rows[:, :5] *= 1e-4
    return rows.astype(np.float32)


def test_one_cosine_block_is_the_cosine_kernel_bit_for_bit() -> None:
    train, pool = make_rows(40), make_rows(9000, seed=1)
    train[3] = 0.0
    wanted = [LinearKernel(rows.copy()).features.numpy() for rows in (train, pool)]
    normalise_rows(train, pool, (FeatureBlock(17),))
    assert np.array_equal(train, wanted[0])
    assert np.array_equal(pool, wanted[1])
    assert not train[3].any()


def test_cosine_blocks_make_a_weighted_sum_of_cosine_kernels() -> None:
    train, pool = make_rows(6), make_rows(8, seed=1)
    train[2, :5] = 0.0
    cosines = []
    for part in (slice(0, 5), slice(5, 17)):
        wide = [rows[:, part].astype(float) for rows in (train, pool)]
        norms = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in wide]
        unit = [rows / np.where(norm, norm, 1.0) for rows, norm in zip(wide, norms, strict=True)]
        cosines.append(unit[0] @ unit[1].T)
    normalise_rows(train, pool, BLOCKS)
    np.testing.assert_allclose(train @ pool.T, 0.3 * cosines[0] + 0.7 * cosines[1], atol=1e-6)
    lengths = np.square(train).sum(axis=1)
    np.testing.assert_allclose(lengths, np.where(np.arange(6) == 2, 0.7, 1.0), rtol=1e-6)


@pytest.mark.parametrize("n_train", [0, 6])
def test_none_scales_each_block_by_one_number_of_both_sets(n_train: int) -> None:
    train, pool = make_rows(n_train), make_rows(9000, seed=1)
    before = np.concatenate([train, pool]).astype(float)
    normalise_rows(train, pool, BLOCKS, normalise="none")
    after = np.concatenate([train, pool]).astype(float)
    for part, weight in ((slice(0, 5), 0.3), (slice(5, 17), 0.7)):
        ratios = after[:, part] / before[:, part]
        np.testing.assert_allclose(ratios, ratios[0, 0], rtol=1e-6)
        mean = np.square(after[:, part]).sum(axis=1).mean()
        assert mean == pytest.approx(weight, rel=1e-5)


@pytest.mark.parametrize("normalise", ["cosine", "none"])
def test_zeros_stay_zeros_and_nothing_is_left_of_a_block_without_weight(normalise: str) -> None:
    train, pool = np.zeros((2, 17), dtype=np.float32), np.zeros((3, 17), dtype=np.float32)
    normalise_rows(train, pool, BLOCKS, normalise=normalise)
    assert not train.any() and not pool.any()
    train, pool = make_rows(0), make_rows(4)
    normalise_rows(train, pool, (FeatureBlock(5, 0.0), FeatureBlock(12)), normalise=normalise)
    assert not pool[:, :5].any()
    assert np.square(pool).sum(axis=1).mean() == pytest.approx(1.0)


def test_large_and_small_rows_are_scaled_in_double_precision() -> None:
    pool = np.array([[3e30, 4e30], [3e-30, 4e-30]], dtype=np.float32)
    train = np.zeros((0, 2), dtype=np.float32)
    normalise_rows(train, pool, (FeatureBlock(2),))
    np.testing.assert_allclose(pool[0], [0.6, 0.8], rtol=1e-6)
    assert np.abs(pool[1]).max() < 1e-15  # below the floor of norms


def test_a_kernel_of_normalised_rows_holds_no_copy() -> None:
    train, pool = make_rows(2), make_rows(3)
    normalise_rows(train, pool, BLOCKS)
    kernel = LinearKernel(pool, normalise="none")
    assert kernel.features.data_ptr() == torch.from_numpy(pool).data_ptr()


def test_wrong_arguments_raise() -> None:
    train, pool = make_rows(2), make_rows(3)
    with pytest.raises(ArgumentError, match="normalise is 'unit'; allowed are cosine, none"):
        normalise_rows(train, pool, BLOCKS, normalise="unit")
    with pytest.raises(ArgumentError, match=r"blocks have \[5\] entries, the rows 17"):
        normalise_rows(train, pool, BLOCKS[:1])
