from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, Hookean

from labelwise.errors import LabelwiseWarning, WriteError
from labelwise.runtime.files import write_text
from labelwise.structures import read_structures, write_structures


def test_round_trip_keeps_everything(tmp_path: Path, water: Atoms) -> None:
    crystal = bulk("Cu", cubic=True)
    crystal.set_constraint(FixAtoms([0, 2]))
    crystal.calc = SinglePointCalculator(
        crystal, energy=-3.0, forces=np.arange(12.0).reshape(4, 3), stress=np.arange(6.0)
    )
    crystal.info.update(reaction="a b", flag=True, vector=[1.0, 2.0], nested={"x": [1, 2]})
    crystal.arrays["tags"] = np.arange(4)
    water.info["quote"] = 'say "hi" = [1]'
    write_structures(tmp_path / "out.extxyz", [crystal, water])
    again = read_structures(tmp_path / "out.extxyz")
    assert again[0] == crystal
    assert again[1] == water
    assert again[0].info["reaction"] == "a b"
    assert again[0].info["flag"]
    assert again[0].info["nested"] == {"x": [1, 2]}
    assert np.array_equal(again[0].arrays["tags"], np.arange(4))
    assert again[0].constraints[0].index.tolist() == [0, 2]
    assert np.array_equal(again[0].calc.results["forces"], np.arange(12.0).reshape(4, 3))
    assert again[1].info["quote"] == 'say "hi" = [1]'


def test_own_key_beside_a_calculator_result(tmp_path: Path, water: Atoms) -> None:
    water.calc = SinglePointCalculator(water, energy=-1.0, forces=np.ones((3, 3)))
    water.info["energy"] = -2.0
    write_structures(tmp_path / "out.extxyz", [water])
    atoms = read_structures(tmp_path / "out.extxyz")[0]
    assert atoms.calc.results["energy"] == -2.0
    assert np.array_equal(atoms.calc.results["forces"], np.ones((3, 3)))
    assert water.calc.results["energy"] == -1.0


def test_a_structure_that_cannot_be_written_is_named(tmp_path: Path, water: Atoms) -> None:
    water.arrays["tags"] = np.arange(2)
    with pytest.raises(WriteError, match="structure 1 of"):
        write_structures(tmp_path / "out.extxyz", [Atoms("H"), water])
    assert list(tmp_path.iterdir()) == []


def test_replaces_in_one_step_and_makes_folders(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.txt"
    write_text(target, "one")
    write_text(target, "two")
    assert target.read_text() == "two"
    assert [path.name for path in target.parent.iterdir()] == ["b.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="is a directory"):
        write_text(tmp_path, "x")
    with pytest.raises(WriteError, match="cannot write"):
        write_text(tmp_path / "file" / "below", "x")


def test_constraints_that_extended_xyz_cannot_hold_are_told(tmp_path: Path) -> None:
    crystal = bulk("Cu", cubic=True)
    crystal.set_constraint([FixAtoms([0]), FixBondLength(1, 2), Hookean(1, 3, 5.0, rt=2.0)])
    other = bulk("Cu", cubic=True)
    other.set_constraint(FixBondLength(1, 2))
    message = r"out\.xyz: left out .*'FixBondLengths' of 2 structures, .*'Hookean' of 1 structure$"
    with pytest.warns(LabelwiseWarning, match=message) as caught:
        write_structures(tmp_path / "out.xyz", [crystal, other])
    assert len(caught) == 1
    assert len(crystal.constraints) == 3
    again, _ = read_structures(tmp_path / "out.xyz")
    assert [each.index.tolist() for each in again.constraints] == [[0]]


def test_constraints_that_are_kept_are_not_told(tmp_path: Path) -> None:
    crystal = bulk("Cu", cubic=True)
    crystal.set_constraint([FixAtoms([0]), FixCartesian([1], (True, False, True))])
    write_structures(tmp_path / "out.xyz", [crystal])
    (again,) = read_structures(tmp_path / "out.xyz")
    held = {int(each.index[0]): each.mask.tolist() for each in again.constraints}
    assert held[0] == [True, True, True]
    assert held[1] == [True, False, True]
