from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from labelwise.structures import Frame, Screen, Source


def frame(atoms: Atoms, index: int = 0, file: str = "pool.extxyz") -> Frame:
    return Frame(atoms, Source(file, index), index)


@pytest.fixture
def screen() -> Screen:
    return Screen([1, 6, 8], cutoff=4.5)


def broken(kind: str) -> Atoms:
    cell = np.diag([5.0, 5.0, 5.0])
    flat = np.array([[5.0, 0, 0], [0, 5.0, 0], [5.0, 5.0, 0]])
    return {
        "no-atoms": Atoms(),
        "non-finite": Atoms("CO", [[0, 0, np.nan], [0, 0, 1.1]]),
        "non-finite ": Atoms("CO", [[0, 0, np.inf], [0, 0, 1.1]]),
        "non-finite  ": Atoms("C", [[0, 0, 0]], cell=cell * np.nan, pbc=True),
        "bad-cell": Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], pbc=True),
        "bad-cell ": Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], cell=flat, pbc=True),
        "bad-cell  ": Atoms("C", cell=[[5, 0, 0], [0, 5, 0], [2.5, 0, 1e-3]], pbc=True),
        "bad-cell   ": Atoms("C", cell=[[5, 0, 0], [9, 9, 9], [2.5, 0, 0]], pbc=[1, 0, 1]),
        "unknown-element": Atoms("CU", [[0, 0, 0], [0, 0, 1.1]]),
        "unknown-element ": Atoms("CX", [[0, 0, 0], [0, 0, 1.1]]),
        "atoms-too-close": Atoms("CO", [[0, 0, 0], [0, 0, 0.3]]),
        "atoms-too-close ": Atoms("CO", [[0, 0, 0], [0, 0, 0]]),
        "atoms-too-close  ": Atoms("CO", [[0, 0, 0], [0, 0, 4.7]], cell=cell, pbc=True),
        "isolated-atom": Atoms("C", [[0, 0, 0]]),
        "isolated-atom ": Atoms("C", [[0, 0, 0]], cell=4 * cell, pbc=True),
        "no-neighbours": Atoms("CO", [[0, 0, 0], [0, 0, 9.0]]),
        "no-neighbours ": Atoms("CO", [[0, 0, 0], [9.0, 9.0, 9.0]], cell=4 * cell, pbc=True),
    }[kind]


KINDS = [
    "no-atoms", "non-finite", "non-finite ", "non-finite  ", "bad-cell", "bad-cell ", "bad-cell  ",
    "bad-cell   ",
    "unknown-element", "unknown-element ", "atoms-too-close", "atoms-too-close ",
    "atoms-too-close  ", "isolated-atom", "isolated-atom ", "no-neighbours", "no-neighbours ",
]  # fmt: skip


@pytest.mark.parametrize("role", ["pool", "train"])
@pytest.mark.parametrize("kind", KINDS)
def test_reasons(screen: Screen, kind: str, role: str) -> None:
    check = screen.check_pool if role == "pool" else screen.check_train
    found = check(frame(broken(kind), 7))
    assert found is not None
    assert (found.reason, found.role, found.index) == (kind.strip(), role, 7)
    assert str(found.source) == "pool.extxyz@7"
    assert found.detail


def test_sound_structures_pass(screen: Screen, water: Atoms) -> None:
    chain = Atoms("C", [[0, 0, 0]], cell=[1.3, 20, 20], pbc=[True, False, False])
    for number, atoms in enumerate([water, bulk("C", "diamond", a=3.57), chain]):
        assert screen.check_pool(frame(atoms, number)) is None


def test_duplicates_name_the_first(screen: Screen, water: Atoms, rattled_molecules: list) -> None:
    assert screen.check_train(frame(water, 3, "train.extxyz")) is None
    assert screen.check_train(frame(water, 4, "train.extxyz")) is None  # the user's own
    first = rattled_molecules[1]
    assert screen.check_pool(frame(first, 0)) is None
    again = screen.check_pool(frame(first.copy(), 1))
    labelled = screen.check_pool(frame(water.copy(), 2))
    assert again is not None
    assert (again.reason, again.detail) == ("duplicate-of-pool", "equals pool.extxyz@0")
    assert labelled is not None
    assert (labelled.reason, labelled.detail) == ("duplicate-of-train", "equals train.extxyz@3")


def test_without_a_model_only_the_geometry_counts() -> None:
    screen = Screen(None, None)
    assert screen.check_pool(frame(Atoms("UO", [[0, 0, 0], [0, 0, 9.0]]))) is None
    assert screen.check_pool(frame(Atoms("UO", [[0, 0, 0], [0, 0, 0.1]]))) is not None


def test_density_bound_never_hides_a_missing_neighbour() -> None:
    """Sparse crystals just inside and outside the cutoff are told apart."""
    screen = Screen(None, cutoff=4.5)
    for number, spacing in enumerate(np.linspace(3.05, 7.05, 41)):
        found = screen.check_pool(frame(bulk("C", "fcc", a=spacing * np.sqrt(2)), number))
        assert (found is not None) == (spacing > 4.5), spacing


def test_input_is_not_modified(screen: Screen, water: Atoms) -> None:
    before = water.copy()
    screen.check_pool(frame(water))
    assert water == before
    assert water.info == before.info
