"""Units of energies are told from the numbers, and other methods than all-electron ones pass."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ase.units import Hartree, kcal, kJ, mol

from labelwise.errors import LabelError
from labelwise.structures.energy_units import EnergyUnits, name_unit

CH4, WATER, BENZENE = [6, 1, 1, 1, 1], [8, 1, 1], [6] * 6 + [1] * 6
#: B3LYP-like totals, hartree.
HARTREE = {"CH4": (CH4, -40.52), "H2O": (WATER, -76.42), "C6H6": (BENZENE, -232.25)}
#: Thioanisole and diphenyl sulfide as GFN2-xTB has them, eV: few valence electrons, many others.
THIOANISOLE = ([6] * 7 + [1] * 8 + [16], -22.9 * Hartree)
DIPHENYL_SULFIDE = ([6] * 12 + [1] * 10 + [16], -860.5)


def judge(structures: Sequence[tuple[list[int], float]], **info: object) -> None:
    units = EnergyUnits("label 'REF_energy'", "training structures")
    for place, (numbers, energy) in enumerate(structures):
        units.add(numbers, energy, f"a.xyz@{place}", info)
    units.check()


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("eV", 1.0),
        ("hartree", Hartree),
        ("kcal/mol", kcal / mol),
        ("kJ/mol", kJ / mol),
        ("meV", 1e-3),
        ("eV taken for hartree", 1 / Hartree),
        ("eV with the sign reversed", -1.0),
    ],
)
@pytest.mark.parametrize("name", HARTREE)
def test_each_unit_is_named(unit: str, size: float, name: str) -> None:
    numbers, energy = HARTREE[name]
    assert name_unit(numbers, energy * Hartree / size) == unit


@pytest.mark.parametrize(
    ("numbers", "energy"),
    [
        (CH4, -113.6),  # GFN2-xTB
        (CH4, -24.04),  # PAW, VASP
        (WATER, -468.2),  # norm-conserving pseudopotentials
        (WATER, -14.22),  # PAW, VASP
        (WATER, -10.1),  # atomisation energy
        (WATER, -2.5),  # formation energy
        (WATER, 0.03),  # interaction energy
        (CH4, 5.0),
        ([29] * 36, -134.0),  # EMT or PAW
        ([29] * 16 + [6, 8], -75.0),
        ([19, 17], -1170.0),  # pseudopotentials with semicore states
        ([3, 1], -6.2),  # PAW, VASP
        ([1, 1], -6.77),
        ([78, 8], -75.0),
        THIOANISOLE,
    ],
)
def test_energies_of_other_kinds_are_taken(numbers: list[int], energy: float) -> None:
    assert name_unit(numbers, energy) is None
    judge([(numbers, energy)] * 3)


def test_a_set_in_hartree_is_refused_by_name_and_place() -> None:
    expected = r"'REF_energy' of 3 of 3 training structures .* hartree \(a.xyz@0: -40.52, neutral"
    with pytest.raises(LabelError, match=expected):
        judge(list(HARTREE.values()))


def test_some_in_hartree_among_electronvolts_are_named() -> None:
    right = [(numbers, energy * Hartree) for numbers, energy in HARTREE.values()] * 3
    judge(right)
    with pytest.raises(LabelError, match=r"of 1 of 10 .* \(a.xyz@9: -76.42, .*convert it"):
        judge([*right, HARTREE["H2O"]])


def test_valence_energies_that_look_like_hartree_by_chance_are_taken() -> None:
    assert name_unit(*DIPHENYL_SULFIDE) == "hartree"
    others = [(CH4, -113.6), (WATER, -137.9), THIOANISOLE]
    judge([*others, DIPHENYL_SULFIDE])
    with pytest.raises(LabelError, match="energy_unit=eV"):
        judge([DIPHENYL_SULFIDE])
    judge([DIPHENYL_SULFIDE] * 5, energy_unit="eV")


def test_one_energy_in_a_unit_that_no_method_reaches_is_enough() -> None:
    numbers, energy = HARTREE["CH4"]
    others = [(CH4, -113.6)] * 99
    with pytest.raises(LabelError, match=r"of 1 of 100 .* kcal/mol"):
        judge([*others, (numbers, energy * Hartree / (kcal / mol))], energy_unit="eV")
