from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.errors import SelectionError
from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import LinearKernel
from labelwise.studies.curation.herding import (
    mean_square_similarity,
    moment_similarity,
    select_herding,
)
from tests.studies.curation.conftest import clustered_points, gram


def moment_mmd(whole: np.ndarray, idx: list[int]) -> float:
    kappa = 2 * whole + whole**2
    square = kappa.mean() - 2 * kappa[idx].mean() + kappa[np.ix_(idx, idx)].mean()
    return float(np.sqrt(max(square, 0.0)))


def test_each_pick_lowers_the_mmd_most(any_kernel: Kernel) -> None:
    whole = gram(any_kernel)
    selection = select_herding(any_kernel, 12)
    for n_picked, pick in enumerate(selection.pool_idx.tolist()):
        before = selection.pool_idx[:n_picked].tolist()
        options = [i for i in range(len(whole)) if i not in before]
        best = min(moment_mmd(whole, [*before, i]) for i in options)
        np.testing.assert_allclose(moment_mmd(whole, [*before, pick]), best, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(selection.score[n_picked], best, rtol=1e-6, atol=1e-6)


def test_the_whole_set_stands_for_itself(any_kernel: Kernel) -> None:
    selection = select_herding(any_kernel, len(any_kernel))
    assert sorted(selection.pool_idx.tolist()) == list(range(len(any_kernel)))
    assert selection.score[-1] < 1e-5


def test_mean_squares_by_moments_and_by_pairs(any_kernel: Kernel) -> None:
    whole = gram(any_kernel)
    found = mean_square_similarity(any_kernel, chunk_size=13)
    np.testing.assert_allclose(found.numpy(), (whole**2).mean(axis=1), rtol=1e-6)
    both = moment_similarity(any_kernel).numpy()
    np.testing.assert_allclose(both, (2 * whole + whole**2).mean(axis=1), rtol=1e-6, atol=1e-9)


def test_mmd_is_the_difference_of_moments() -> None:
    """The meaning of the score: means (twice) and second moments of the features."""
    phi = clustered_points(50, 4)
    selection = select_herding(LinearKernel(phi, normalise="none"), 9)
    part = phi[torch.from_numpy(selection.pool_idx)]
    means = (part.mean(dim=0) - phi.mean(dim=0)).square().sum()
    seconds = (part.T @ part / len(part) - phi.T @ phi / len(phi)).square().sum()
    np.testing.assert_allclose(selection.score[-1], float((2 * means + seconds).sqrt()))


@pytest.mark.parametrize("chunk_size", [1, 7, 4096])
def test_chunks_do_not_matter(any_kernel: Kernel, chunk_size: int) -> None:
    expected = select_herding(any_kernel, 15)
    found = select_herding(any_kernel, 15, chunk_size=chunk_size)
    assert found.pool_idx.tolist() == expected.pool_idx.tolist()


def test_excluded_structures_count_but_are_not_picked(any_kernel: Kernel) -> None:
    exclude = np.arange(len(any_kernel)) % 2 == 0
    found = select_herding(any_kernel, 10, exclude=exclude)
    assert not exclude[found.pool_idx].any()
    whole = gram(any_kernel)
    np.testing.assert_allclose(
        found.score[-1], moment_mmd(whole, found.pool_idx.tolist()), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(SelectionError, match="31"):
        select_herding(any_kernel, 31, exclude=exclude)
