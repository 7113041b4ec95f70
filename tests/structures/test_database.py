"""Rows of ASE databases keep their data: SQLite, JSON and LMDB alike."""

from __future__ import annotations

from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from labelwise.structures import get_labels, read_structures
from labelwise.structures.aselmdb import write_rows

NAMES = ("H2O", "CH3OH", "H2")


def make(path: Path, data: dict[str, object], atoms: Atoms) -> None:
    if path.suffix == ".aselmdb":
        raw = {"numbers": atoms.numbers, "positions": atoms.positions, "cell": np.zeros((3, 3))}
        raw |= {"pbc": atoms.pbc, "data": data, "key_value_pairs": {"group": "g"}}
        write_rows(path, [{**raw, "constraints": [c.todict() for c in atoms.constraints]}])
        return
    with ase.db.connect(path) as database:
        database.write(atoms, data=data, group="g")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".db", ".json", ".aselmdb"])
def test_arrays_of_data_are_found(tmp_path: Path, suffix: str, name: str) -> None:
    atoms = molecule(name)
    atoms.set_constraint(FixAtoms([0]))
    forces = np.arange(3.0 * len(atoms)).reshape(-1, 3)
    data = {
        "REF_energy": -7.5,
        "REF_forces": forces,
        "energy": np.array([-8.5]),
        "forces": (forces + 1).tolist(),
        "dipole": [0.0, 1.0, 2.0],
        "stress": np.eye(3),
        "charges": np.linspace(0, 1, len(atoms)),
        "note": {"a": [1, "b"]},
        "nothing": None,
    }
    path = tmp_path / f"rows{suffix}"
    make(path, data, atoms)
    (found,) = read_structures(path)
    assert found.constraints[0].index.tolist() == [0]
    labels = get_labels(found, "")
    assert labels.energy == -7.5
    assert np.array_equal(labels.forces, forces)
    labels = get_labels(found, "", energy_key="energy", forces_key="forces")
    assert labels.energy == found.info["energy"] == -8.5
    assert np.array_equal(found.arrays["forces"], forces + 1)
    assert np.array_equal(found.info["dipole"], [0, 1, 2])
    assert np.array_equal(found.info["stress"], np.eye(3))
    assert np.array_equal(found.arrays["charges"], data["charges"])
    assert found.info["note"] == {"a": [1, "b"]}
    assert found.info["group"] == "g"
    assert "nothing" not in found.info


def test_a_row_cannot_replace_what_the_structure_is(tmp_path: Path) -> None:
    atoms = molecule("CH3OH")
    make(tmp_path / "rows.db", {"positions": np.zeros((6, 3))}, atoms)
    (found,) = read_structures(tmp_path / "rows.db")
    assert np.allclose(found.positions, atoms.positions)
    assert np.array_equal(found.info["positions"], np.zeros((6, 3)))
