from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError
from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import Selection
from labelwise.studies.curation.settings import SUMMARY_RULES
from labelwise.studies.curation.summarising import (
    CoverageMeter,
    assign_to,
    average_coverage,
    choose_representatives,
)
from tests.studies.curation.conftest import clustered_points, distances, gram


def as_selection(idx: list[int]) -> Selection:
    return Selection(np.array(idx, dtype=np.int64), np.zeros(len(idx)))


@pytest.mark.parametrize("rule", SUMMARY_RULES)
def test_rules_pick_different_structures_and_spare_what_is_excluded(
    any_kernel: Kernel, rule: str
) -> None:
    exclude = np.arange(len(any_kernel)) % 3 == 0
    found = choose_representatives(any_kernel, 20, rule=rule, exclude=exclude, seed=3)
    assert len(set(found.pool_idx.tolist())) == 20
    assert not exclude[found.pool_idx].any()
    again = choose_representatives(any_kernel, 20, rule=rule, exclude=exclude, seed=3)
    assert found.pool_idx.tolist() == again.pool_idx.tolist()


def test_a_rule_without_diversity_is_refused(any_kernel: Kernel) -> None:
    with pytest.raises(ArgumentError, match="allowed are herding"):
        choose_representatives(any_kernel, 3, rule="top")


def test_every_structure_goes_to_its_nearest(any_kernel: Kernel) -> None:
    idx = [3, 50, 17, 9]
    found = assign_to(any_kernel, as_selection(idx))
    to_each = distances(any_kernel)[:, idx]
    np.testing.assert_allclose(found.distance, to_each.min(axis=1), atol=1e-7)
    rows = np.arange(len(to_each))
    np.testing.assert_allclose(to_each[rows, found.nearest], to_each.min(axis=1), atol=1e-7)
    counts = np.bincount(found.nearest, minlength=4)
    np.testing.assert_allclose(found.weight, counts / len(to_each))


def test_figures_are_those_of_brute_force(any_kernel: Kernel) -> None:
    groups = [f"g{i % 4}" for i in range(len(any_kernel))]
    idx = [0, 8, 21, 40, 44]
    chosen = assign_to(any_kernel, as_selection(idx))
    figures = CoverageMeter(any_kernel, groups).measure(chosen)
    whole = gram(any_kernel)

    def mmd(kernel: np.ndarray, weight: np.ndarray) -> float:
        signed = np.full(len(kernel), -1.0 / len(kernel))
        signed[idx] += weight
        return float(np.sqrt(max(signed @ kernel @ signed, 0.0)))

    equal = np.full(5, 0.2)
    to_nearest = distances(any_kernel)[:, idx].min(axis=1)
    assert figures.mean_distance == pytest.approx(to_nearest.mean(), abs=1e-7)
    assert figures.max_distance == pytest.approx(to_nearest.max(), abs=1e-7)
    assert figures.mmd == pytest.approx(mmd(whole, equal), rel=1e-5)
    assert figures.weighted_mmd == pytest.approx(mmd(whole, chosen.weight), rel=1e-5)
    assert figures.moment_mmd == pytest.approx(mmd(2 * whole + whole**2, equal), rel=1e-5)
    part, all_of = Counter(groups[i] for i in idx), Counter(groups)
    expected = sum(abs(part[g] / 5 - n / len(groups)) for g, n in all_of.items()) / 2
    assert figures.group_difference == pytest.approx(expected)


def test_the_whole_set_has_no_distance_to_itself(any_kernel: Kernel) -> None:
    meter = CoverageMeter(any_kernel)
    figures = meter.measure(assign_to(any_kernel, as_selection(list(range(len(any_kernel))))))
    assert max(figures.max_distance, figures.mmd, figures.moment_mmd) < 1e-6
    assert figures.group_difference is None


def test_herding_matches_moments_and_k_center_covers_better_than_chance() -> None:
    kernel = LinearKernel(clustered_points(300, 6))
    meter = CoverageMeter(kernel)
    random = meter.measure_random(20, range(8))
    assert len({figures.mmd for figures in random}) == 8
    by_herding = meter.measure(assign_to(kernel, choose_representatives(kernel, 20)))
    assert by_herding.moment_mmd < 0.7 * min(figures.moment_mmd for figures in random)
    far = choose_representatives(kernel, 20, rule="k-center")
    by_distance = meter.measure(assign_to(kernel, far))
    assert by_distance.max_distance < min(figures.max_distance for figures in random)


def test_average_is_taken_figure_by_figure(any_kernel: Kernel) -> None:
    for groups in (None, ["a", "b"] * 30):
        figures = CoverageMeter(any_kernel, groups).measure_random(4, range(3))
        mean = average_coverage(figures)
        assert mean["mmd"]["mean"] == pytest.approx(sum(one.mmd for one in figures) / 3)
        assert mean["mmd"]["std"] == pytest.approx(np.std([one.mmd for one in figures], ddof=1))
        assert (mean["group_difference"]["mean"] is None) == (groups is None)


def test_random_figures_depend_on_their_seeds_only() -> None:
    state = torch.random.get_rng_state()
    meter = CoverageMeter(LinearKernel(clustered_points(40, 3)))
    assert meter.measure_random(5, [4, 5]) == meter.measure_random(5, [4, 5])
    assert torch.equal(state, torch.random.get_rng_state())
