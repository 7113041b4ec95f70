from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLength, FixCartesian

from labelwise.errors import LabelError, LabelwiseWarning
from labelwise.structures import read_structures, write_structures
from labelwise.structures.fixed_atoms import free_atoms
from labelwise.structures.split_names import get_split


def test_atoms_without_constraints_are_free(water: Atoms) -> None:
    assert free_atoms(water).tolist() == [True, True, True]
    assert free_atoms(Atoms()).shape == (0,)


def test_constraints_that_fix_atoms(tmp_path: Path) -> None:
    crystal = bulk("Cu", cubic=True)
    crystal.set_constraint(
        [
            FixAtoms([0]),
            FixCartesian([1], mask=(True, True, True)),
            FixCartesian([2], mask=(True, False, True)),
            FixBondLength(2, 3),
        ]
    )
    assert free_atoms(crystal).tolist() == [False, False, True, True]
    with pytest.warns(LabelwiseWarning, match="FixBondLengths. of 1 structure"):
        write_structures(tmp_path / "a.extxyz", [crystal])
    assert free_atoms(read_structures(tmp_path / "a.extxyz")[0]).tolist() == [
        False, False, True, True,
    ]  # fmt: skip


def test_two_constraints_may_fix_an_atom_together() -> None:
    atoms = Atoms("Cu2", positions=np.eye(3)[:2] * 3.0)
    halves = [FixCartesian([1], mask=mask) for mask in ((1, 0, 0), (0, 1, 1))]
    atoms.set_constraint(halves)
    assert free_atoms(atoms).tolist() == [True, False]


@pytest.mark.parametrize("value", ["val_id", 3, np.int64(3)])
def test_names_of_splits(value: object, water: Atoms) -> None:
    water.info["split"] = value
    assert get_split(water, "a.xyz@1", "split") == str(value)


@pytest.mark.parametrize("value", ["", 1.5, None, ["a"]])
def test_what_names_no_split(value: object, water: Atoms) -> None:
    water.info["split"] = value
    with pytest.raises(LabelError, match=r"a.xyz@1: the info key 'split' .* holds"):
        get_split(water, "a.xyz@1", "split")
    del water.info["split"]
    water.info["other"] = 1
    with pytest.raises(LabelError, match=r"a.xyz@1.*is missing.*Info keys present: other"):
        get_split(water, "a.xyz@1", "split")
