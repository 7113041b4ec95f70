"""Structures written in other formats, in the order in which they came."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.db import connect

from labelwise.errors import LabelwiseWarning
from labelwise.structures import read_structures, write_structures
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.datasets.exporting import export_data, list_writable
from labelwise.structures.datasets.mace_extxyz import MaceExtxyz, write_labelled
from labelwise.structures.datasets.registry import load_formats
from tests.structures.datasets.making import make_path


def mixed_paths(*names: str) -> list[LabelledStructure]:
    """Return frames of several families by turns, each family's from its last to its first."""
    paths = [make_path(name, 4, seed=number)[::-1] for number, name in enumerate(names)]
    return [frame for frames in zip(*paths, strict=True) for frame in frames]


def energies_of(structures: list[LabelledStructure]) -> list[float]:
    return [each.arrays.info["REF_energy"] for each in structures]


@pytest.mark.parametrize("to", list_writable())
def test_the_order_of_the_input_is_kept(to: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.extxyz", tmp_path / f"out{load_formats()[to].suffixes[0]}"
    write_labelled(source, mixed_paths("b", "a", "c"))
    assert export_data([source], target, to=to) == 12
    written = list(load_formats()[to].open(target).iter_structures())
    read = list(MaceExtxyz(source).iter_structures())
    assert energies_of(written) == pytest.approx(energies_of(read), abs=1e-6)
    assert len(set(energies_of(read))) == 12


def test_constraints_that_an_export_cannot_hold_are_told_once(tmp_path: Path) -> None:
    atoms = molecule("CH3CH2OH")
    atoms.set_constraint(
        [FixAtoms([0]), FixBondLength(1, 2), FixCartesian([3], (True, False, False))]
    )
    atoms.calc = SinglePointCalculator(atoms, energy=-4000.0, forces=atoms.positions)
    source, target = tmp_path / "in.db", tmp_path / "out.extxyz"
    with connect(source) as database:
        database.write(atoms)
        database.write(atoms)
    message = "'FixBondLengths' of 2 structures, constraint 'FixCartesian' of 2 structures$"
    with pytest.warns(LabelwiseWarning, match=message) as caught:
        assert export_data([source], target, to="mace-extxyz") == 2
    assert len(caught) == 1
    (fixed,) = read_structures(target)[0].constraints
    assert fixed.index.tolist() == [0]


def test_constraints_of_a_file_reach_a_database(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.set_constraint(FixCartesian([1], (True, False, False)))
    atoms.calc = SinglePointCalculator(atoms, energy=-2080.0, forces=atoms.positions)
    source, target = tmp_path / "in.extxyz", tmp_path / "out.db"
    write_structures(source, [atoms])
    export_data([source], target, to="ase-db")
    (held,) = read_structures(target)[0].constraints
    assert (held.index.tolist(), held.mask.tolist()) == ([1], [True, False, False])
