from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError, SelectionError
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import find_nearest, nearest_labelled
from tests.selection.rules.oracles import RbfKernel, noise, paths, split, sq_distances


@pytest.mark.parametrize("make", [LinearKernel, RbfKernel])
@pytest.mark.parametrize("chunk_size", [1, 13, 4096])
def test_nearest_is_that_of_brute_force(make, chunk_size):
    features = paths(260, 8, seed=1)
    pool, train = make(features[:200]), make(features[200:])
    idx = np.array([7, 199, 0, 7])
    nearest, distance = find_nearest(pool, train, idx, chunk_size=chunk_size)
    expected = sq_distances(pool, train)[idx]
    assert nearest.tolist() == expected.argmin(axis=1).tolist()
    np.testing.assert_allclose(distance, np.sqrt(expected.min(axis=1)), rtol=1e-8)
    assert (nearest.dtype, distance.dtype) == (np.int64, np.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_labelled_structures_are_taken_in_blocks(dtype, monkeypatch):
    pool, train = split(noise(300, 8, seed=2).to(dtype), 100)
    whole = find_nearest(pool, train, np.arange(100))
    monkeypatch.setattr(nearest_labelled, "CENTRES_PER_BLOCK", 9)
    monkeypatch.setattr(nearest_labelled, "_ROWS_PER_THREAD", 7)
    part = find_nearest(pool, train, np.arange(100))
    np.testing.assert_array_equal(part[0], whole[0])
    np.testing.assert_allclose(part[1], whole[1], rtol=1e-12)


def test_of_equals_the_first_is_nearest_and_a_copy_is_at_zero():
    features = noise(30, 700, seed=3).float()
    train = LinearKernel(torch.cat([features, features, features]))
    nearest, distance = find_nearest(LinearKernel(features), train, np.arange(30))
    assert nearest.tolist() == list(range(30))
    assert (distance == 0.0).all()


def test_nothing_labelled_and_nothing_asked():
    pool, none = split(noise(5, 3, seed=0), 5)
    nearest, distance = find_nearest(pool, none, np.array([1, 2]))
    assert nearest.tolist() == [-1, -1]
    assert np.isinf(distance).all()
    assert [len(a) for a in find_nearest(pool, pool, np.array([], dtype=np.int64))] == [0, 0]


@pytest.mark.parametrize("idx", [[-1], [0, 5]])
def test_indices_out_of_the_pool_are_refused(idx):
    pool, train = split(noise(7, 3, seed=0), 5)
    with pytest.raises(SelectionError, match="allowed are 0 to 4"):
        find_nearest(pool, train, np.array(idx))
    with pytest.raises(ArgumentError, match="width"):
        find_nearest(pool, LinearKernel(noise(3, 4, seed=0)), np.array([0]))


@pytest.mark.parametrize("most_unclear", [-1.0, 0.3, 1.0])
@pytest.mark.parametrize("data", [noise, paths])
def test_the_float32_filter_gives_the_float64_result(data, most_unclear, monkeypatch):
    """-1 never filters, 1 always does; near-copies make many rows unclear."""
    features = data(900, 40, seed=7)
    features[600:] = features[:300] * (1.0 + 1e-6 * noise(300, 40, seed=8))
    single = split(features.float(), 700)
    double = tuple(LinearKernel(k.features.double(), normalise="none") for k in single)
    monkeypatch.setattr(nearest_labelled, "_MOST_UNCLEAR", most_unclear)
    ours, exact = (find_nearest(*kernels, np.arange(700)) for kernels in (single, double))
    np.testing.assert_array_equal(ours[0], exact[0])
    np.testing.assert_allclose(ours[1] ** 2, exact[1] ** 2, rtol=1e-9, atol=1e-13)


def test_rows_that_are_not_clear_are_few_on_paths():
    pool, train = split(paths(900, 40, seed=9).float(), 800)
    blocks = nearest_labelled.NearestInTrain(pool, pool.diagonal(), train, train.diagonal())
    _, unclear = blocks._filtered(slice(0, 800), slice(0, 100))
    assert float(unclear.double().mean()) < 0.3
