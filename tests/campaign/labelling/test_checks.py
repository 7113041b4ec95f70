from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st

from labelwise.campaign.labelling import Failure, Label, LabelChecks

ENERGIES = {1: -13.6, 6: -1030.0, 8: -2040.0}


def total(atoms: Atoms) -> float:
    return sum(ENERGIES[z] for z in atoms.numbers)


def label(atoms: Atoms, energy: float, force: float = 0.1) -> Label:
    return Label("key", energy, np.full((len(atoms), 3), force))


@pytest.fixture
def checks() -> LabelChecks:
    structures = [molecule(name) for name in ("H2O", "CH4", "CO2")]
    return LabelChecks(structures, [total(atoms) for atoms in structures])


def test_a_label_that_fits_is_passed_on_as_it_is(checks: LabelChecks) -> None:
    atoms = molecule("CH3OH")
    good = label(atoms, total(atoms) + 5.0)
    assert checks.check(atoms, good) is good


@pytest.mark.parametrize(
    ("energy", "force", "reason"),
    [
        (np.nan, 0.1, "not-finite"),
        (np.inf, 0.1, "not-finite"),
        (-100.0, np.nan, "not-finite"),
        (-100.0, 1e3, "absurd-forces"),
        (-100.0, 0.1, "absurd-energy"),
        (0.0, 0.1, "zeros"),
        (-100.0, 0.0, "zeros"),
    ],
)
def test_labels_that_cannot_be_true(
    checks: LabelChecks, energy: float, force: float, reason: str
) -> None:
    found = checks.check(molecule("H2O"), label(molecule("H2O"), energy, force))
    assert isinstance(found, Failure)
    assert found.reason == reason


def test_forces_of_another_shape(checks: LabelChecks) -> None:
    found = checks.check(molecule("H2O"), Label("key", -1.0, np.zeros((2, 3))))
    assert isinstance(found, Failure)
    assert "shape (2, 3)" in found.detail


def test_compositions_that_nothing_is_known_of_are_not_judged() -> None:
    checks = LabelChecks([molecule("H2O")], [total(molecule("H2O"))])
    assert checks.deviation(molecule("H2O2"), -1.0) is None  # other ratio of H and O
    assert checks.deviation(molecule("CH4"), -1.0) is None  # C was never seen
    double = molecule("H2O") + molecule("H2O")
    assert checks.deviation(double, 2 * total(molecule("H2O"))) == pytest.approx(0.0, abs=1e-9)
    assert LabelChecks().deviation(molecule("H2O"), 5.0) is None


def test_isolated_atoms_are_enough_to_judge() -> None:
    checks = LabelChecks(isolated_atoms=ENERGIES)
    atoms = molecule("CH3OH")
    assert checks.deviation(atoms, total(atoms) + 6.0) == pytest.approx(1.0)


@given(shift=st.floats(-1e4, 1e4), n=st.integers(1, 5))
def test_deviation_is_the_shift(shift: float, n: int) -> None:
    known = [molecule(name) for name in ("H2O", "CH4", "CO2")] * n
    checks = LabelChecks(known, [total(atoms) for atoms in known])
    atoms = molecule("CH3OH")
    found = checks.deviation(atoms, total(atoms) + shift)
    assert found == pytest.approx(shift / len(atoms), abs=1e-6)


@pytest.mark.parametrize("bad", [[3], [1, 5, 6]])
def test_wrong_labels_among_the_known_do_not_bend_what_is_expected(bad: list[int]) -> None:
    known = [molecule(name) for name in ("H2O", "CH4", "CO2", "CH3OH", "C2H4", "H2CO", "C2H6")] * 2
    energies = [total(atoms) for atoms in known]
    for i in bad:
        energies[i] -= 3000.0
    checks = LabelChecks(known, energies)
    atoms = molecule("CH3CHO")
    assert checks.deviation(atoms, total(atoms)) == pytest.approx(0.0, abs=1e-6)
    found = checks.check(known[bad[0]], label(known[bad[0]], energies[bad[0]]))
    assert isinstance(found, Failure)
    assert found.reason == "absurd-energy"


def test_isolated_atoms_among_the_known_are_no_samples() -> None:
    """Their binding energy is none, and would bend what is expected of molecules."""
    known = [molecule(name) for name in ("H2O", "CH4", "CO2", "CH3OH", "C2H4", "H2CO", "C2H6")]
    energies = [total(atoms) for atoms in known]
    lone = [Atoms(symbol) for symbol in ("H", "C", "O")]
    checks = LabelChecks([*known, *lone], [*energies, -5.0, -1020.0, -2030.0])
    atoms = molecule("CH3CHO")
    assert checks.deviation(atoms, total(atoms)) == pytest.approx(0.0, abs=1e-6)
