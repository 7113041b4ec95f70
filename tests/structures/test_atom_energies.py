from __future__ import annotations

import numpy as np
import pytest

from labelwise.structures.atom_energies import (
    count_elements,
    fit_atom_energies,
    in_row_space,
    predict_left_out,
)

TRUE = np.array([-10.7, -48.8, -71.0, -102.6])
NO_PRIOR = np.zeros(4)


def sample(n: int, seed: int, noise: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Compositions of H, C, N and O, and energies with an error per atom."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, size=(n, 4))
    n_atoms = counts.sum(axis=1)
    return counts, counts @ TRUE + noise * n_atoms * rng.normal(size=n)


def wrong(kind: str, energy: float) -> float:
    factors = {"hartree": 1 / 27.2114, "kcal/mol": 23.06, "sign": -1.0}
    return energy * factors[kind] if kind in factors else energy + float(kind)


@pytest.mark.parametrize("kind", ["-3000", "30", "hartree", "kcal/mol", "sign"])
@pytest.mark.parametrize("bad", [[7], [3, 8, 14, 22, 31]])
def test_wrong_energies_take_no_part(kind: str, bad: list[int]) -> None:
    counts, energies = sample(40, seed=0)
    for i in bad:
        energies[i] = wrong(kind, energies[i])
    fit = fit_atom_energies(counts, energies, prior=NO_PRIOR)
    assert np.flatnonzero(fit.far_off).tolist() == bad
    good = ~fit.far_off
    expected = fit_atom_energies(counts[good], energies[good], prior=NO_PRIOR)
    np.testing.assert_allclose(fit.energies, expected.energies, atol=1e-9)
    assert fit.residual_rms < 0.05


def test_clean_data_are_fitted_by_least_squares() -> None:
    counts, energies = sample(40, seed=1)
    n_atoms = counts.sum(axis=1)
    fit = fit_atom_energies(counts, energies, prior=NO_PRIOR)
    expected, *_ = np.linalg.lstsq(counts / n_atoms[:, None], energies / n_atoms, rcond=None)
    np.testing.assert_allclose(fit.energies, expected, rtol=1e-11)
    assert fit.used.all()
    assert not fit.far_off.any()
    assert fit.noise == pytest.approx(fit.residual_rms * np.sqrt(40 / 36))


def test_weights_count_structures_several_times() -> None:
    counts, energies = sample(12, seed=2)
    weights = np.arange(12) % 4
    several = np.repeat(np.arange(12), weights)
    fit = fit_atom_energies(counts, energies, prior=NO_PRIOR, weights=weights.astype(float))
    expected = fit_atom_energies(counts[several], energies[several], prior=NO_PRIOR)
    np.testing.assert_allclose(fit.energies, expected.energies, rtol=1e-9)
    assert fit.used.tolist() == (weights > 0).tolist()
    none = fit_atom_energies(counts, energies, prior=TRUE, weights=np.zeros(12))
    np.testing.assert_array_equal(none.energies, TRUE)


def test_uncertainty_is_the_standard_error() -> None:
    """Of 400 fits to the same structures, with errors drawn anew."""
    counts, _ = sample(15, seed=3)
    rng = np.random.default_rng(4)
    n_atoms = counts.sum(axis=1)
    fits = [
        fit_atom_energies(
            counts, counts @ TRUE + 0.03 * n_atoms * rng.normal(size=15), prior=NO_PRIOR
        )
        for _ in range(400)
    ]
    spread = np.std([fit.energies for fit in fits], axis=0)
    stated = np.sqrt(np.mean([fit.uncertainty**2 for fit in fits], axis=0))
    np.testing.assert_allclose(stated, spread, rtol=0.15)


def test_left_out_is_the_fit_to_the_other_compositions() -> None:
    counts, energies = sample(8, seed=5)
    counts = np.concatenate([counts, counts[:3], 2 * counts[:1], [[0, 0, 9, 0]]])
    energies = np.concatenate([energies, energies[:3] + 1.0, 2 * energies[:1], [-600.0]])
    n_atoms = counts.sum(axis=1)
    offset = energies / n_atoms
    found = predict_left_out(counts, offset)
    parts = counts / n_atoms[:, None]
    for i in range(len(counts)):
        others = ~np.isclose(parts, parts[i]).all(axis=1)
        fitted, *_ = np.linalg.lstsq(parts[others], offset[others], rcond=None)
        assert found[i] == pytest.approx(offset[i] - parts[i] @ fitted, abs=1e-8)
    carbon = np.array([[2, 1, 0, 0], [4, 2, 0, 0], [0, 0, 1, 1]])
    assert np.isnan(predict_left_out(carbon, np.ones(3))).all()
    assert in_row_space(carbon[:1], carbon).tolist() == [True, True, False]


def test_elements_are_counted_in_the_order_asked_for() -> None:
    numbers = [np.array([8, 1, 1]), np.array([6, 1, 1, 1, 1])]
    assert count_elements(numbers, (6, 1)).tolist() == [[0, 2], [1, 4]]
    assert count_elements([], (6, 1)).shape == (0, 2)
    assert count_elements(numbers, ()).shape == (2, 0)
