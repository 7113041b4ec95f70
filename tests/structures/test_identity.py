from __future__ import annotations

import io

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from hypothesis import given
from hypothesis import strategies as st

from labelwise.structures import DuplicateIndex, hash_structure


def random_atoms(n_atoms: int, seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    return Atoms("C" * n_atoms, rng.uniform(-20, 20, size=(n_atoms, 3)))


def index_of(*structures: Atoms) -> DuplicateIndex:
    index = DuplicateIndex()
    for number, atoms in enumerate(structures):
        index.add(atoms, number)
    return index


@given(n_atoms=st.integers(1, 200), seed=st.integers(0, 10**6), scale=st.floats(0, 1))
def test_copies_within_the_tolerance_are_found(n_atoms: int, seed: int, scale: float) -> None:
    atoms = random_atoms(n_atoms, seed)
    copy = atoms.copy()
    copy.positions += scale * 1e-6 * np.random.default_rng(seed + 1).uniform(-1, 1, (n_atoms, 3))
    assert index_of(atoms).find(copy) == 0


@given(n_atoms=st.integers(1, 200), seed=st.integers(0, 10**6))
def test_different_structures_are_not_confused(n_atoms: int, seed: int) -> None:
    atoms = random_atoms(n_atoms, seed)
    moved = atoms.copy()
    moved.positions += np.random.default_rng(seed + 1).normal(scale=1e-4, size=(n_atoms, 3))
    assert index_of(atoms).find(moved) is None


def test_every_copy_that_went_through_text_is_found() -> None:
    structures = [random_atoms(15, seed) for seed in range(200)]
    text = io.StringIO()
    write(text, structures, format="extxyz")
    text.seek(0)
    copies = read(text, ":", format="extxyz")
    index = index_of(*structures)
    assert [index.find(copy) for copy in copies] == list(range(200))


def test_elements_order_cell_and_periodicity_count(water: Atoms) -> None:
    index = index_of(water)
    assert len(index) == 1
    heavier, cell, periodic, reordered = (water.copy() for _ in range(4))
    heavier.numbers[0] = 16
    cell.cell = [9, 9, 9]
    periodic.pbc = [True, False, False]
    reordered = reordered[[1, 0, 2]]
    for other in (heavier, cell, periodic, reordered):
        assert index.find(other) is None
        assert hash_structure(other) != hash_structure(water)


def test_hash_ignores_labels_and_noise_below_the_tolerance(water: Atoms) -> None:
    water.positions = np.round(water.positions, 6)
    copy = water.copy()
    copy.info["REF_energy"] = 1.0
    copy.positions += 1e-8
    assert hash_structure(copy) == hash_structure(water)
    copy.positions[0, 0] += 1e-5
    assert hash_structure(copy) != hash_structure(water)


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_negative_zero_is_zero(value: float) -> None:
    assert hash_structure(Atoms("H", [[value, 0, 0]])) == hash_structure(Atoms("H", [[0, 0, 0]]))
