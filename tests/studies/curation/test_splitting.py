from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError
from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import LinearKernel
from labelwise.studies.curation.leakage import measure_leakage
from labelwise.studies.curation.neighbours import single_linkage
from labelwise.studies.curation.settings import SUMMARY_RULES
from labelwise.studies.curation.splitting import (
    TEST,
    TRAIN,
    VALID,
    Split,
    misfit,
    split_by_distance,
    split_to_cover,
    split_units,
    units_of_groups,
    wanted_sizes,
)
from tests.studies.curation.conftest import clustered_points, distances

NO_COPIES = np.arange(60)


def parts_of_units(split: Split) -> list[set[int]]:
    return [set(split.part[split.unit == unit].tolist()) for unit in np.unique(split.unit)]


@given(
    n=st.integers(10, 5000), valid=st.floats(0.0, 0.45), test=st.floats(0.11, 0.45)
)  # 0.11 of 10 is one
def test_sizes_add_up(n: int, valid: float, test: float) -> None:
    if valid > 0 and round(valid * n) == 0:
        with pytest.raises(ArgumentError, match="valid set would be empty"):
            wanted_sizes(n, valid, test)
        return
    sizes = wanted_sizes(n, valid, test)
    assert sum(sizes) == n
    assert abs(sizes[VALID] - valid * n) <= 0.5 and abs(sizes[TEST] - test * n) <= 0.5


@pytest.mark.parametrize(
    ("valid", "test"), [(0.0, 0.0), (0.5, 0.5), (-0.1, 0.2), (float("nan"), 0.1)]
)
def test_wrong_fractions_are_refused(valid: float, test: float) -> None:
    with pytest.raises(ArgumentError, match="allowed are fractions"):
        wanted_sizes(100, valid, test)


@given(sizes=st.lists(st.integers(1, 30), min_size=3, max_size=40), seed=st.integers(0, 5))
def test_units_stay_whole_and_sizes_come_near(sizes: list[int], seed: int) -> None:
    unit = np.repeat(np.arange(len(sizes)), sizes)
    n = len(unit)
    wanted = (n - 2 * (n // 5 + 1), n // 5 + 1, n // 5 + 1)
    if wanted[TRAIN] < 1:
        return
    split = split_units(unit, wanted, seed=seed)
    assert all(len(parts) == 1 for parts in parts_of_units(split))
    assert sum(split.sizes) == n
    assert misfit(split) <= 2 * max(sizes)
    assert (split_units(unit, wanted, seed=seed).part == split.part).all()


def test_single_structures_give_exact_sizes_and_seeds_differ() -> None:
    splits = [split_units(np.arange(1000), (700, 100, 200), seed=seed) for seed in range(3)]
    for split in splits:
        assert split.sizes == (700, 100, 200)
    assert (splits[0].part != splits[1].part).any()
    # Every place is as likely: the test set is not a run of neighbours.
    assert 400 < splits[0].members(TEST).mean() < 600


def test_the_best_of_few_large_groups_is_found() -> None:
    unit = np.repeat(np.arange(5), [540, 336, 288, 182, 129])
    split = split_units(unit, wanted_sizes(1475, 0.1, 0.2))
    assert split.sizes == (1058, 129, 288)  # by hand, among all 3^5


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ArgumentError, match="2 groups that must stay together"):
        split_units(np.array([0, 0, 0, 1]), (2, 1, 1))


def test_groups_that_share_a_structure_stay_together() -> None:
    groups = ["a", "a", "b", "b", "c", "c"]
    first_equal = np.array([0, 1, 0, 3, 4, 5])
    assert units_of_groups(groups, first_equal).tolist() == [0, 0, 0, 0, 1, 1]
    assert units_of_groups(groups, np.arange(6)).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("quantile", [0.1, 0.5])
def test_sets_keep_the_distance(any_kernel: Kernel, quantile: float) -> None:
    tree = single_linkage(any_kernel)
    distance = float(np.quantile(tree.distance, quantile))
    split = split_by_distance(tree, NO_COPIES, (36, 12, 12), distance=distance)
    assert split.distance == distance
    assert_apart(any_kernel, split, distance)


def test_by_default_the_distance_is_as_large_as_sizes_allow(any_kernel: Kernel) -> None:
    tree = single_linkage(any_kernel)
    split = split_by_distance(tree, NO_COPIES, (36, 12, 12))
    assert split.distance is not None and split.distance > 0
    assert misfit(split) <= 1.2
    assert_apart(any_kernel, split, split.distance)


def test_too_large_a_distance_is_refused(any_kernel: Kernel) -> None:
    with pytest.raises(ArgumentError, match="hang together in 1 cluster;"):
        split_by_distance(single_linkage(any_kernel), NO_COPIES, (36, 12, 12), distance=1e3)
    with pytest.raises(ArgumentError, match="distance is -1"):
        split_by_distance(single_linkage(any_kernel), NO_COPIES, (36, 12, 12), distance=-1.0)


def assert_apart(kernel: Kernel, split: Split, distance: float) -> None:
    whole = distances(kernel)
    other = split.part[:, None] != split.part[None, :]
    assert other.any()
    assert whole[other].min() > distance - 1e-7
    assert split.sizes[VALID] > 0 and split.sizes[TEST] > 0


@pytest.mark.parametrize("rule", SUMMARY_RULES)
def test_covering_sets_have_their_sizes_and_their_copies(any_kernel: Kernel, rule: str) -> None:
    first_equal = np.arange(60)
    first_equal[30] = 0
    first_equal[[41, 42, 43]] = 7
    split = split_to_cover(any_kernel, first_equal, (36, 12, 12), rule=rule, seed=1)
    assert all(len(parts) == 1 for parts in parts_of_units(split))
    assert 9 <= split.sizes[TEST] <= 12 and 9 <= split.sizes[VALID] <= 12


def test_covering_test_sets_resemble_the_whole_more_than_random_ones() -> None:
    phi = clustered_points(400, 6)
    split = split_to_cover(LinearKernel(phi, normalise="none"), np.arange(400), (320, 40, 40))
    for part in (TEST, VALID):
        gaps = []
        for seed in range(5):
            idx = np.random.default_rng(seed).permutation(400)[:40]
            gaps.append(float((phi[idx].mean(dim=0) - phi.mean(dim=0)).norm()))
        chosen = phi[split.members(part)].mean(dim=0)
        assert float((chosen - phi.mean(dim=0)).norm()) < min(gaps)


def test_leakage_by_brute_force(any_kernel: Kernel) -> None:
    first_equal = np.arange(60)
    first_equal[59] = 0
    part = np.repeat([TRAIN, VALID, TEST], [30, 10, 20])
    groups = [f"g{i // 7}" for i in range(60)]
    split = Split(part, np.arange(60), (30, 10, 20))
    found = measure_leakage(split, first_equal, groups=groups, kernel=any_kernel)
    assert [(leak.held_out, leak.seen) for leak in found] == [
        ("test", "train"), ("valid", "train"), ("test", "valid"),
    ]  # fmt: skip
    assert [leak.n_equal for leak in found] == [1, 0, 0]
    assert [leak.shared_groups for leak in found] == [(), ("g4",), ("g5",)]
    whole = distances(any_kernel)
    expected = np.quantile(whole[40:, :30].min(axis=1), [0, 0.05, 0.5, 0.95, 1])
    np.testing.assert_allclose(found[0].distance, expected, atol=1e-7)
    without = measure_leakage(split, first_equal)
    assert without[0].distance is None and without[0].shared_groups is None


def test_empty_parts_have_no_leakage(any_kernel: Kernel) -> None:
    split = Split(np.repeat([TRAIN, TEST], 30), np.arange(60), (30, 0, 30))
    (only,) = measure_leakage(split, NO_COPIES, kernel=any_kernel)
    assert (only.held_out, only.seen) == ("test", "train")
