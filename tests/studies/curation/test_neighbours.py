from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from labelwise.errors import ArgumentError
from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import LinearKernel
from labelwise.studies.curation.neighbours import (
    find_nearest_others,
    merge_labels,
    renumber,
    single_linkage,
)
from tests.studies.curation.conftest import distances


def is_same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((renumber(a.astype(np.int64)) == renumber(b.astype(np.int64))).all())


@pytest.mark.parametrize("block_size", [7, 1000])
def test_nearest_others_are_those_of_brute_force(any_kernel: Kernel, block_size: int) -> None:
    expected = distances(any_kernel)
    np.fill_diagonal(expected, np.inf)
    nearest, distance = find_nearest_others(any_kernel, block_size=block_size)
    np.testing.assert_allclose(distance, expected.min(axis=1), atol=1e-7)
    rows = np.arange(len(nearest))
    np.testing.assert_allclose(expected[rows, nearest], expected.min(axis=1), atol=1e-7)
    assert (nearest != rows).all()


def test_nearest_of_other_groups(any_kernel: Kernel) -> None:
    groups = [str(i % 3) for i in range(len(any_kernel))]
    expected = distances(any_kernel)
    expected[np.equal.outer(groups, groups)] = np.inf
    nearest, distance = find_nearest_others(any_kernel, groups=groups, block_size=11)
    np.testing.assert_allclose(distance, expected.min(axis=1), atol=1e-7)
    assert all(groups[i] != groups[j] for i, j in enumerate(nearest))


def test_one_structure_has_no_neighbour() -> None:
    kernel = LinearKernel(torch.ones((1, 2)))
    nearest, distance = find_nearest_others(kernel)
    assert nearest.tolist() == [-1] and np.isinf(distance).all()
    assert single_linkage(kernel).components(1.0).tolist() == [0]


@pytest.mark.parametrize("block_size", [7, 1000])
def test_tree_is_single_linkage_of_scipy(any_kernel: Kernel, block_size: int) -> None:
    whole = distances(any_kernel)
    tree = single_linkage(any_kernel, block_size=block_size)
    oracle = linkage(squareform(whole, checks=False), method="single")
    np.testing.assert_allclose(tree.distance, oracle[:, 2], atol=1e-7)
    for height in np.quantile(tree.distance, [0.1, 0.5, 0.8, 0.97]) + 1e-6:
        found = tree.components(float(height))
        assert is_same_partition(found, fcluster(oracle, height, criterion="distance"))
        _, direct = connected_components(whole <= height)
        assert is_same_partition(found, direct)


def test_equal_distances_give_a_tree() -> None:
    """On a lattice nearly all links are equally long; none may close a ring."""
    side = torch.arange(6, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    tree = single_linkage(LinearKernel(points, normalise="none"), block_size=5)
    np.testing.assert_allclose(tree.distance, np.ones(35))
    assert tree.components(1.0 + 1e-9).max() == 0
    assert tree.components(0.99).max() == 35


def test_merged_labels_join_what_either_joins() -> None:
    merged = merge_labels(np.array([5, 5, 2, 2, 9, 1]), np.array([0, 1, 1, 2, 3, 4]))
    assert merged.tolist() == [0, 0, 0, 0, 1, 2]


def test_an_empty_set_has_no_tree() -> None:
    with pytest.raises(ArgumentError, match="empty"):
        single_linkage(LinearKernel(torch.zeros((0, 2))))
