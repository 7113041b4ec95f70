from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from labelwise.errors import SelectionError
from labelwise.kernels.base import Kernel
from labelwise.selection.rules import posterior_variance
from labelwise.structures.atom_energies import robust_score
from labelwise.studies.curation.outliers import (
    composition_deviation,
    leave_one_out_variance,
)
from tests.selection.rules.oracles import RbfKernel
from tests.studies.curation.conftest import gram

NAMES = ["H2O", "CH4", "CH3OH", "HCN", "C2H4", "CH3CHO", "NH3", "H2CO", "C2H6", "CO2"]
ENERGIES = {1: -13.0, 6: -1030.0, 7: -1480.0, 8: -2040.0}


@pytest.mark.parametrize("regularisation", [1e-3, 0.3])
def test_variance_is_that_of_leaving_each_out(any_kernel: Kernel, regularisation: float) -> None:
    whole = gram(any_kernel)
    expected = []
    for i in range(len(whole)):
        rest = np.delete(np.arange(len(whole)), i)
        known = whole[np.ix_(rest, rest)] + regularisation * np.eye(len(rest))
        expected.append(whole[i, i] - whole[i, rest] @ np.linalg.solve(known, whole[rest, i]))
    found = leave_one_out_variance(any_kernel, regularisation=regularisation, chunk_size=17)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_a_kernel_of_low_rank_comes_near_as_its_rank_grows() -> None:
    points = np.random.default_rng(0).normal(size=(60, 3))
    kernel = RbfKernel(torch.from_numpy(points))
    exact = leave_one_out_variance(kernel)
    errors = [
        np.abs(leave_one_out_variance(kernel, max_rank=rank) - exact).mean() for rank in (5, 20, 50)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    np.testing.assert_allclose(leave_one_out_variance(kernel, max_rank=60), exact, rtol=1e-6)


def test_variance_agrees_with_the_rules_own(any_kernel: Kernel) -> None:
    """The rule's posterior variance, given a labelled set without the structure."""
    rest = any_kernel.take(torch.arange(1, len(any_kernel)))
    first = any_kernel.take(torch.arange(1))
    expected = posterior_variance(first, rest, regularisation=1e-2)
    found = leave_one_out_variance(any_kernel, regularisation=1e-2)
    np.testing.assert_allclose(found[0], float(expected[0]), rtol=1e-5)


def test_wrong_regularisation_is_refused(any_kernel: Kernel) -> None:
    with pytest.raises(SelectionError, match="regularisation=0"):
        leave_one_out_variance(any_kernel, regularisation=0.0)


def labelled(rng: np.random.Generator, n: int = 60) -> tuple[list[Atoms], np.ndarray]:
    structures = [molecule(NAMES[i % len(NAMES)]) for i in range(n)]
    noise = 0.05 * rng.normal(size=n)
    energies = [
        sum(ENERGIES[int(z)] for z in atoms.numbers) + e * len(atoms)
        for atoms, e in zip(structures, noise, strict=True)
    ]
    return structures, np.array(energies)


def test_wrong_energies_do_not_bend_the_fit(rng: np.random.Generator) -> None:
    structures, energies = labelled(rng)
    wrong = energies.copy()
    wrong[[3, 20, 41]] += np.array([40.0, -25.0, 3000.0])
    deviation = composition_deviation(structures, wrong, threshold=5.0)
    score = np.abs(robust_score(deviation))
    assert np.flatnonzero(score > 5).tolist() == [3, 20, 41]
    sizes = np.array([len(structures[i]) for i in (3, 20, 41)])
    expected = np.array([40.0, -25.0, 3000.0]) / sizes
    np.testing.assert_allclose(deviation[[3, 20, 41]], expected, atol=0.3)


def test_deviation_is_from_the_fit_to_the_others(rng: np.random.Generator) -> None:
    structures, energies = labelled(rng, n=20)
    deviation = composition_deviation(structures, energies, threshold=1e9)
    numbers = sorted(ENERGIES)
    counts = np.array([[np.sum(atoms.numbers == z) for z in numbers] for atoms in structures])
    sizes = counts.sum(axis=1)
    for i in range(len(structures)):
        rest = np.delete(np.arange(len(structures)), i)
        fitted, *_ = np.linalg.lstsq(
            counts[rest] / sizes[rest, None], energies[rest] / sizes[rest], rcond=None
        )
        expected = (energies[i] - counts[i] @ fitted) / sizes[i]
        np.testing.assert_allclose(deviation[i], expected, rtol=1e-6, atol=1e-9)


def test_undetermined_compositions_and_missing_energies_are_not_judged(
    rng: np.random.Generator,
) -> None:
    structures, energies = labelled(rng, n=30)
    structures.append(molecule("SiH4"))  # the only one with silicon
    energies = np.append(energies, -1e6)
    energies[0] = np.nan
    deviation = composition_deviation(structures, energies, threshold=5.0)
    assert np.flatnonzero(np.isnan(deviation)).tolist() == [0, 30]


def test_no_energies_give_no_deviations() -> None:
    deviation = composition_deviation([molecule("H2O")], np.array([np.nan]), threshold=5.0)
    assert np.isnan(deviation).all()


def test_robust_score_of_normal_numbers_counts_standard_deviations(
    rng: np.random.Generator,
) -> None:
    values = rng.normal(loc=3.0, scale=2.0, size=20_000)
    values[:100] = 1e9
    np.testing.assert_allclose(robust_score(np.append(values, 13.0))[-1], 5.0, rtol=0.03)
    odd = robust_score(np.array([1.0, 1.0, 1.0, 2.0, np.nan]))
    assert odd[:3].tolist() == [0, 0, 0] and odd[3] == np.inf and np.isnan(odd[4])
