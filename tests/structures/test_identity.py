from __future__ import annotations

import io

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from hypothesis import given
from hypothesis import strategies as st

from labelwise.structures import DuplicateIndex, hash_structure
from labelwise.structures.identity import TOLERANCE, hash_geometry, make_fingerprint


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


def crowd(n_atoms: int, n_structures: int, seed: int, *, has_cell: bool) -> list[Atoms]:
    """Return structures of which many are close to others, some just within the tolerance."""
    rng = np.random.default_rng(seed)
    frames: list[Atoms] = []
    for _ in range(n_structures):
        if not frames or rng.random() < 0.3:
            cell = rng.uniform(5, 9, 3) if has_cell else None
            frames.append(Atoms("H" * n_atoms, rng.uniform(-3, 3, (n_atoms, 3)), cell=cell))
            continue
        copy = frames[rng.integers(len(frames))].copy()
        size = 10.0 ** rng.uniform(-7.0, -5.0)
        copy.positions += size * rng.uniform(-1.0, 1.0, copy.positions.shape)
        if has_cell:
            copy.cell[0, 0] += size * rng.uniform(-1.0, 1.0)
        frames.append(copy)
    return frames


@pytest.mark.parametrize("has_cell", [False, True])
@pytest.mark.parametrize("n_atoms", [1, 2, 3, 9, 21])
def test_duplicates_are_those_of_a_brute_force_search(n_atoms: int, has_cell: bool) -> None:
    frames = crowd(n_atoms, 600, n_atoms, has_cell=has_cell)
    flat = np.array([[*a.cell.array.ravel(), *a.positions.ravel()] for a in frames])
    index = DuplicateIndex()
    kept: list[int] = []
    n_repeats = 0
    for number, atoms in enumerate(frames):
        equal = [i for i in kept if np.abs(flat[i] - flat[number]).max() <= TOLERANCE]
        found = index.find(atoms)
        assert (found in equal) if equal else (found is None)
        n_repeats += bool(equal)
        if found is None:
            index.add(atoms, number)
            kept.append(number)
    assert 20 < n_repeats < 500


def test_a_crowd_of_one_small_molecule_takes_time_in_proportion() -> None:
    """20,000 bond lengths 1e-5 Å apart: a search through all neighbours would take minutes."""
    index = DuplicateIndex()
    for number in range(20_000):
        atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.6 + 1e-5 * number]])
        assert index.find(atoms) is None
        index.add(atoms, number)
    n_held = [len(entries) for entries in index._bins.values()]
    assert max(n_held) <= 6


def test_large_structures_keep_no_coordinates() -> None:
    assert len(make_fingerprint(random_atoms(21, 0)).coordinates) == 72
    assert len(make_fingerprint(random_atoms(22, 0)).coordinates) == 0


STATES = [
    {},
    {"charge": 1},
    {"total_charge": -1},
    {"total_spin": 2},
    {"charge": 1, "spin": 2},
    {"spin": 0},
    {"charge": "one"},
    {"charge": [1, 2]},
]


def with_info(atoms: Atoms, **info: object) -> Atoms:
    copy = atoms.copy()
    copy.info.update(info)
    return copy


def test_charge_and_multiplicity_tell_structures_apart(water: Atoms) -> None:
    states = [with_info(water, **info) for info in STATES]
    assert len({hash_structure(atoms) for atoms in states}) == len(STATES)
    assert len({hash_geometry(atoms) for atoms in states}) == 1
    index = index_of(*states)
    assert [index.find(atoms) for atoms in states] == list(range(len(STATES)))


@pytest.mark.parametrize(
    "info",
    [
        {"charge": 0},
        {"total_charge": 0.0},
        {"charge": -0.0, "spin": 1},
        {"charge": None},
        {"charge": "0", "total_spin": np.array(1)},
        {"multiplicity": 1},
        {"uhf": 0},
        {"spin_multiplicity": 1, "energy": -3.0},
    ],
)
def test_neutral_singlets_are_what_says_nothing(water: Atoms, info: dict[str, object]) -> None:
    said = with_info(water, **info)
    assert hash_structure(said) == hash_structure(water) == hash_geometry(water)
    assert index_of(water).find(said) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"charge": 1}, {"total_charge": "1"}),
        ({"charge": 1.0}, {"charge": np.array([1])}),
        ({"total_charge": 1, "charge": 1}, {"charge": np.int32(1)}),
        ({"spin": 3}, {"multiplicity": 3.0}),
        ({"uhf": 2}, {"total_spin": 3}),
        ({"n_unpaired": 2}, {"mult": 3}),
        ({"net_charge": 1}, {"charge": 1}),
        ({"Charge": -1}, {"molecular_charge": "-1"}),
    ],
)
def test_one_state_in_other_words(
    water: Atoms, one: dict[str, object], other: dict[str, object]
) -> None:
    first, second = with_info(water, **one), with_info(water, **other)
    assert hash_structure(first) == hash_structure(second) != hash_structure(water)
    assert index_of(first).find(second) == 0


def test_initial_charges_and_moments_tell_structures_apart(water: Atoms) -> None:
    cation, partial, up, down, zero = (water.copy() for _ in range(5))
    cation.set_initial_charges([1, 0, 0])
    partial.set_initial_charges([-0.8, 0.4, 0.4])
    up.set_initial_magnetic_moments([2, 0, 0])
    down.set_initial_magnetic_moments([-2, 0, 0])
    zero.set_initial_magnetic_moments([0.0, -0.0, 0])
    hashes = [hash_structure(atoms) for atoms in (water, cation, up, down)]
    assert len(set(hashes)) == 4
    assert hash_structure(partial) == hash_structure(zero) == hashes[0]
    assert hash_structure(with_info(water, total_charge=1)) == hashes[1]


def test_hashes_of_structures_without_a_charge_stay_as_they_were() -> None:
    """Campaigns and stores on disk name structures by them."""
    atoms = Atoms("OH2", [[0, 0, 0.1], [0, 0.7, -0.4], [0, -0.7, -0.4]], cell=[5, 6, 7], pbc=True)
    assert hash_structure(atoms) == "e776f548fafde3783ba7592a8b80df19"
