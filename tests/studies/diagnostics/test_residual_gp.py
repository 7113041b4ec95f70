"""The residual Gaussian process against brute force in float64 and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError, SelectionError
from labelwise.kernels.base import Kernel, SubsetKernel
from labelwise.kernels.linear import LinearKernel
from labelwise.studies.diagnostics.residual_gp import NestedResidualGP

LAMBDA = 1e-3


@pytest.fixture
def kernels(rng: np.random.Generator) -> tuple[LinearKernel, LinearKernel]:
    """Twelve labelled and five held-out structures."""
    rows = torch.from_numpy(rng.normal(size=(17, 6)))
    return LinearKernel(rows[:12]), LinearKernel(rows[12:])


@pytest.fixture
def residuals(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(loc=4.0, scale=0.3, size=12)


def _solve(K: np.ndarray, k: np.ndarray, diagonal: np.ndarray, r: np.ndarray):
    """Return mean, variance and scale by the formulas, with an inverse."""
    inverse = np.linalg.inv(K + LAMBDA * np.eye(len(K)))
    centred = r - r.mean()
    mean = r.mean() + k.T @ inverse @ centred
    variance = diagonal - np.einsum("tm,ts,sm->m", k, inverse, k)
    return mean, variance, centred @ inverse @ centred / len(r)


@pytest.mark.parametrize("explicit", [True, False])
def test_every_prefix_is_that_of_brute_force(
    kernels: tuple[LinearKernel, LinearKernel], residuals: np.ndarray, explicit: bool
) -> None:
    labelled, held_out = kernels
    x, z = labelled.features.numpy(), held_out.features.numpy()
    sets: tuple[Kernel, Kernel] = kernels
    if not explicit:
        sets = (SubsetKernel(labelled, torch.arange(12)), SubsetKernel(held_out, torch.arange(5)))
    predictor = NestedResidualGP(sets[0], regularisation=LAMBDA).at(sets[1])
    for t in range(1, 13):
        found = predictor.predict(residuals[:t])
        expected = _solve(x[:t] @ x[:t].T, x[:t] @ z.T, (z * z).sum(axis=1), residuals[:t])
        np.testing.assert_allclose(found.mean, expected[0], rtol=1e-9)
        np.testing.assert_allclose(found.variance, expected[1], rtol=1e-8, atol=1e-12)
        assert found.scale == pytest.approx(expected[2], rel=1e-9, abs=1e-15)


def test_scikit_learn_agrees(
    kernels: tuple[LinearKernel, LinearKernel], residuals: np.ndarray
) -> None:
    pytest.importorskip("sklearn")
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import DotProduct

    labelled, held_out = kernels
    found = NestedResidualGP(labelled, regularisation=LAMBDA).at(held_out).predict(residuals)
    theirs = GaussianProcessRegressor(
        DotProduct(sigma_0=0.0, sigma_0_bounds="fixed"), alpha=LAMBDA, optimizer=None
    ).fit(labelled.features.numpy(), residuals - residuals.mean())
    mean, std = theirs.predict(held_out.features.numpy(), return_std=True)
    np.testing.assert_allclose(found.mean, mean + residuals.mean(), rtol=1e-9)
    np.testing.assert_allclose(np.sqrt(found.variance), std, rtol=1e-8)


def test_deviations_scale_with_the_residuals(
    kernels: tuple[LinearKernel, LinearKernel], residuals: np.ndarray
) -> None:
    """γ makes a change of unit a change of unit, and a constant offset nothing at all."""
    predictor = NestedResidualGP(kernels[0]).at(kernels[1])
    one, other = predictor.predict(residuals), predictor.predict(1000 * residuals - 7.0)
    np.testing.assert_allclose(other.std_with(), 1000 * one.std_with(), rtol=1e-9)
    np.testing.assert_allclose(other.mean, 1000 * one.mean - 7.0, rtol=1e-9)
    noisy = one.std_with(LAMBDA)
    np.testing.assert_allclose(noisy**2 - one.std_with() ** 2, one.scale * LAMBDA, rtol=1e-8)


def test_labels_of_the_prefix_are_nearly_met(
    kernels: tuple[LinearKernel, LinearKernel], residuals: np.ndarray
) -> None:
    labelled = kernels[0]
    found = NestedResidualGP(labelled, regularisation=1e-9).at(labelled).predict(residuals[:4])
    np.testing.assert_allclose(found.mean[:4], residuals[:4], atol=1e-6)
    assert (found.variance[:4] < 1e-8).all() and (found.variance >= 0).all()


def test_wrong_arguments(kernels: tuple[LinearKernel, LinearKernel], residuals: np.ndarray) -> None:
    labelled, held_out = kernels
    predictor = NestedResidualGP(labelled).at(held_out)
    for wrong in (residuals[:0], np.append(residuals, 1.0)):
        with pytest.raises(ArgumentError, match="allowed are 1 to 12"):
            predictor.predict(wrong)
    with pytest.raises(SelectionError, match="regularisation"):
        NestedResidualGP(labelled, regularisation=0.0)
    with pytest.raises(ArgumentError, match="labelled is empty"):
        NestedResidualGP(LinearKernel(torch.zeros(0, 6, dtype=torch.float64)))
    with pytest.raises(ArgumentError, match="width"):
        NestedResidualGP(labelled).at(LinearKernel(torch.ones(2, 5, dtype=torch.float64)))
