"""Wrong units are told from the numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from ase.units import Hartree, kcal, kJ, mol

from labelwise.errors import DataSetError
from labelwise.structures.datasets.ase_database import write_database
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.datasets.inspecting import inspect_data
from labelwise.structures.datasets.mace_extxyz import MaceExtxyz, write_labelled
from labelwise.structures.datasets.omol import write_omol
from labelwise.structures.datasets.units import check_total_energy
from tests.structures.datasets.making import make_paths

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


WRITERS = {"x.extxyz": write_labelled, "x.db": write_database, "x.aselmdb": write_omol}


def in_hartree(structures: list[LabelledStructure], places: range) -> list[LabelledStructure]:
    for place in places:
        structures[place].atoms.info["REF_energy"] /= Hartree
    return structures


@pytest.mark.parametrize("name", WRITERS)
def test_user_files_in_hartree_are_refused(tmp_path: Path, name: str) -> None:
    write: Callable[..., int] = WRITERS[name]
    write(tmp_path / name, in_hartree(make_paths({"a": 12, "b": 12}), range(24)))
    with pytest.raises(DataSetError, match=rf"{name}: the energy of 24 of 24 .* in hartree"):
        inspect_data(tmp_path / name)


@pytest.mark.parametrize("name", WRITERS)
def test_a_tenth_in_hartree_is_named(tmp_path: Path, name: str) -> None:
    write: Callable[..., int] = WRITERS[name]
    write(tmp_path / name, make_paths({"a": 10, "b": 10}))
    assert inspect_data(tmp_path / name).n_read == 20
    write(tmp_path / "wrong" / name, in_hartree(make_paths({"a": 10, "b": 10}), range(8, 10)))
    with pytest.raises(DataSetError, match=r"the energy of 2 of 20 .* in hartree \(a/8"):
        inspect_data(tmp_path / "wrong" / name)


def test_a_long_file_is_refused_near_its_beginning(tmp_path: Path) -> None:
    write_labelled(tmp_path / "x.xyz", in_hartree(make_paths({"a": 150}), range(150)))
    structures = MaceExtxyz(tmp_path / "x.xyz").iter_structures()
    assert len(list(islice(structures, 99))) == 99
    with pytest.raises(DataSetError, match="of 100 of 100"):
        next(structures)
