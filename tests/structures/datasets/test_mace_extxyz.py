"""Labelled extended XYZ as a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from labelwise.errors import DataSetError
from labelwise.structures.datasets.mace_extxyz import MaceExtxyz, write_labelled
from tests.structures.datasets.making import make_paths


def test_written_and_read_back(tmp_path: Path) -> None:
    made = make_paths({"a": 3, "b": 2}, subset="s", split="train", charge=-1, spin=2)
    assert write_labelled(tmp_path / "x.extxyz", made) == 5
    found = list(MaceExtxyz(tmp_path / "x.extxyz").iter_structures())
    for one, other in zip(made, found, strict=True):
        assert one.entry == other.entry
        assert np.array_equal(one.atoms.positions, other.atoms.positions)
        assert np.array_equal(one.atoms.arrays["REF_forces"], other.atoms.arrays["REF_forces"])
        assert one.atoms.info == other.atoms.info
    assert list(MaceExtxyz(tmp_path / "x.extxyz").iter_entries()) == [each.entry for each in found]


def test_keys_of_a_calculator_and_isolated_atoms(tmp_path: Path) -> None:
    lone = molecule("H")
    lone.info["config_type"] = "IsolatedAtom"
    water = molecule("H2O")
    water.calc = SinglePointCalculator(water, energy=-2079.0, forces=np.ones((3, 3)))
    water.info["config_type"] = "Default"
    write(tmp_path / "x.xyz", [lone, water], format="extxyz")
    (found,) = MaceExtxyz(tmp_path / "x.xyz").iter_structures()
    assert found.entry.position == 0
    assert found.entry.name == "x/1"
    assert found.atoms.info["REF_energy"] == -2079.0
    assert np.array_equal(found.atoms.arrays["REF_forces"], np.ones((3, 3)))


@pytest.mark.parametrize("kind", ["IsolatedAtom", "isolated_atom", "ISOLATED-ATOM"])
def test_isolated_atoms_are_known_by_their_kind_alone(tmp_path: Path, kind: str) -> None:
    frames = [molecule("H"), molecule("H2O"), molecule("H"), molecule("CH4")]
    frames[0].info["config_type"] = kind
    frames[1].info["remark"] = "one of the set IsolatedAtoms"
    for number, atoms in enumerate(frames):
        forces = np.zeros((len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - number, forces=forces)
    write(tmp_path / "x.xyz", frames, format="extxyz")
    data = MaceExtxyz(tmp_path / "x.xyz")
    assert [each.entry.name for each in data.iter_structures()] == ["x/1", "x/2", "x/3"]
    assert [each.entry.name for each in data.iter_structures([2])] == ["x/3"]


def test_slabs_keep_cell_tags_and_fixed_atoms(tmp_path: Path) -> None:
    slab = fcc111("Cu", (2, 2, 3), vacuum=8.0)
    add_adsorbate(slab, molecule("CO"), 2.0, "ontop")
    slab.info.clear()
    slab.set_constraint(FixAtoms(indices=[0, 1, 2, 3]))
    slab.calc = SinglePointCalculator(slab, energy=-40.0, forces=np.full((14, 3), 0.5))
    write(tmp_path / "x.extxyz", slab, format="extxyz")
    (found,) = MaceExtxyz(tmp_path / "x.extxyz").iter_structures()
    assert np.allclose(found.atoms.cell.array, slab.cell.array, atol=1e-8)
    assert found.atoms.pbc.tolist() == [True, True, False]
    assert found.atoms.get_tags().tolist() == slab.get_tags().tolist()
    assert found.atoms.constraints[0].index.tolist() == [0, 1, 2, 3]
    assert (found.atoms.arrays["REF_forces"] == 0.5).all()


@pytest.mark.parametrize("lost", ["REF_energy=", "REF_forces:"])
def test_a_frame_without_labels_is_named(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "x.extxyz"
    write_labelled(path, make_paths({"a": 3}))
    lines = path.read_text().split("\n")
    n_atoms = int(lines[0])
    lines[n_atoms + 3] = lines[n_atoms + 3].replace(lost, lost.replace("REF", "OTHER"))
    path.write_text("\n".join(lines))
    with pytest.raises(DataSetError, match=r"x.extxyz@1.*missing.*allowed are REF_energy"):
        list(MaceExtxyz(path).iter_structures())


def test_wanted_structures_only(tmp_path: Path) -> None:
    made = make_paths({"a": 6})
    write_labelled(tmp_path / "x.extxyz", made)
    found = MaceExtxyz(tmp_path / "x.extxyz").iter_structures([1, 4])
    assert [each.entry.name for each in found] == ["a/1", "a/4"]


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    def broken():
        yield from make_paths({"a": 2})
        raise DataSetError("cut short")

    with pytest.raises(DataSetError, match="cut short"):
        write_labelled(tmp_path / "x.extxyz", broken())
    assert list(tmp_path.iterdir()) == []
