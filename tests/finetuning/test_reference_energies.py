from __future__ import annotations

import numpy as np
import pytest
from ase.data import chemical_symbols
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError
from labelwise.finetuning.reference_energies import (
    explain_undetermined,
    explain_unreached,
    list_symbols,
    prior_energies,
)
from labelwise.structures.atom_energies import fit_atom_energies, in_row_space

ELEMENTS = (1, 6, 7, 8)
PRIOR = np.array([-13.0, -1030.0, -1480.0, -2040.0])
TRUE = np.array([-10.7, -48.8, -71.9, -108.5])


def counts_of(*formulas: dict[str, int]) -> np.ndarray:
    rows = [[f.get(chemical_symbols[z], 0) for z in ELEMENTS] for f in formulas]
    return np.array(rows, dtype=np.int64)


WATER, METHANE, METHANOL = {"H": 2, "O": 1}, {"H": 4, "C": 1}, {"H": 4, "C": 1, "O": 1}
FORMAMIDE, CYANIDE = {"H": 3, "C": 1, "N": 1, "O": 1}, {"H": 1, "C": 1, "N": 1}


def test_known_offsets_are_recovered() -> None:
    counts = counts_of(WATER, METHANE, METHANOL, FORMAMIDE, CYANIDE)
    fit = fit_atom_energies(counts, counts @ TRUE, prior=PRIOR, regularisation=0.0)
    np.testing.assert_allclose(fit.energies, TRUE, atol=1e-8)
    assert not fit.undetermined.any()
    assert fit.n_determined == 4
    assert fit.residual_rms < 1e-9
    assert explain_undetermined(fit, 5, ELEMENTS, "the checkpoint") == ()


def test_the_default_regularisation_hardly_moves_labelled_energies() -> None:
    """Although the guess is off by 2,000 eV, the error stays below 0.1 meV/atom."""
    counts = counts_of(WATER, METHANE, METHANOL, FORMAMIDE, CYANIDE)
    fit = fit_atom_energies(counts, counts @ TRUE, prior=PRIOR, regularisation=1e-6)
    assert fit.residual_rms < 1e-4


def test_it_is_the_normal_equations_solution(rng: np.random.Generator) -> None:
    counts = rng.integers(1, 6, size=(9, 4))
    residuals = rng.normal(size=9)
    prior = rng.normal(size=4)
    fit = fit_atom_energies(counts, residuals, prior=prior, regularisation=0.3)
    A = counts / counts.sum(1, keepdims=True)
    b = residuals / counts.sum(1)
    expected = np.linalg.solve(A.T @ A + 0.3 * np.eye(4), A.T @ b + 0.3 * prior)
    np.testing.assert_allclose(fit.energies, expected, rtol=1e-10)


def test_one_composition_is_reported_with_the_elements() -> None:
    counts = counts_of(METHANOL, METHANOL)
    fit = fit_atom_energies(counts, counts @ TRUE, prior=PRIOR, regularisation=1e-9)
    assert fit.undetermined.tolist() == [True, True, False, True]
    assert fit.n_determined == 1
    np.testing.assert_allclose(counts @ fit.energies, counts @ TRUE, atol=1e-3)
    (message,) = explain_undetermined(fit, 1, ELEMENTS, "the checkpoint")
    assert "H, C and O one by one" in message
    assert "the checkpoint" in message
    assert "isolated atoms" in message


def test_an_element_on_its_own_is_determined_beside_others_that_are_not() -> None:
    """Water alone leaves H and O open, but carbon is known from its own structure."""
    counts = counts_of(WATER, {"C": 4})
    fit = fit_atom_energies(counts, counts @ TRUE, prior=PRIOR, regularisation=0.0)
    assert fit.undetermined.tolist() == [True, False, False, True]
    assert fit.energies[1] == pytest.approx(TRUE[1])


def test_absent_elements_keep_the_prior() -> None:
    counts = counts_of(WATER, METHANE)
    fit = fit_atom_energies(counts, counts @ TRUE, prior=PRIOR, regularisation=1e-6)
    assert fit.energies[2] == PRIOR[2]


def test_unreached_validation_structures_are_counted() -> None:
    train = counts_of(WATER, METHANE)
    others = counts_of(WATER, FORMAMIDE, METHANE)
    assert in_row_space(train, others).tolist() == [True, False, True]
    errors = np.array([1e9, -3561.0, 1e9])
    about = {"elements": ELEMENTS, "prior_name": "the checkpoint"}
    (message,) = explain_unreached(train, others, errors, **about)
    assert message.startswith("1 of 3 validation structures")
    assert "N not in the training set" in message
    assert "off by 3,561 eV" in message
    assert explain_unreached(train, others[[0]], errors[[0]], **about) == ()


@given(st.integers(2, 30), st.integers(0, 1000))
def test_combinations_of_labelled_compositions_are_reached(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    train = rng.integers(0, 5, size=(n, 4)) + np.eye(4, dtype=np.int64)[rng.integers(4, size=n)]
    mixed = train[[0]] + 2 * train[[1]]
    assert in_row_space(train, np.concatenate([train[:2], mixed])).all()


def test_prior_takes_what_is_known_and_says_what_is_missing() -> None:
    merged = prior_energies(ELEMENTS, PRIOR, {1: -10.7, 99: 0.0})
    np.testing.assert_array_equal(merged, [-10.7, *PRIOR[1:]])
    with pytest.raises(ArgumentError, match="isolated_atoms lacks the energies of C and O"):
        prior_energies(ELEMENTS, PRIOR, {1: -10.7}, required=(1, 6, 8))
    with pytest.raises(ArgumentError, match="not finite"):
        prior_energies(ELEMENTS, PRIOR, {1: float("nan")})


def test_symbols_are_listed_in_words() -> None:
    assert list_symbols([8]) == "O"
    assert list_symbols([8, 1, 6]) == "H, C and O"
