"""Wrong units are told from the numbers."""

from __future__ import annotations

import pytest
from ase.units import Hartree, kcal, kJ, mol

from labelwise.datasets.base import DataSetError
from labelwise.datasets.units import check_total_energy

#: Total energies in eV as quantum chemistry gives them: ωB97X/6-31G(d) of atoms, and molecules.
KNOWN = [
    ([1], -13.62),
    ([6, 1, 1, 1, 1], -1102.2),
    ([8, 1, 1], -2079.3),
    ([17], -12518.0),
    ([35], -70043.0),
    ([3, 9], -2921.0),
]


@pytest.mark.parametrize(("numbers", "energy"), KNOWN)
def test_right_and_wrong(numbers: list[int], energy: float) -> None:
    check_total_energy(numbers, energy, "here")
    wrong_units = {
        "hartree": Hartree,
        "kcal/mol": kcal / mol,
        "kJ/mol": kJ / mol,
        "meV": 1e-3,
        "eV taken for hartree": 1 / Hartree,
    }
    for unit, size in wrong_units.items():
        wrong = energy / size
        with pytest.raises(DataSetError, match=f"here: a total energy .* in {unit}"):
            check_total_energy(numbers, wrong, "here")


@pytest.mark.parametrize(("numbers", "energy"), [([6, 1, 1, 1, 1], -113.6), ([7, 7], -172.0)])
def test_energies_of_valence_electrons_are_taken(numbers: list[int], energy: float) -> None:
    """GFN2-xTB of methane and nitrogen."""
    check_total_energy(numbers, energy, "here")


def test_elements_with_core_potentials_are_not_judged() -> None:
    check_total_energy([78, 1], -3.0, "here")
