from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from labelwise.potentials.graphs import GraphBuilder
from labelwise.structures import Frame, Screen, Source
from labelwise.structures.images import find_nearest_distance


class AtMostTwo:
    """Stands for what tells the size of a structure; the real one needs a model."""

    def find(self, atoms: Atoms) -> str | None:
        return None if len(atoms) <= 2 else f"{len(atoms)} atoms"


def test_a_structure_that_is_too_large_is_set_aside_before_distances_are_looked_at() -> None:
    screen = Screen(None, size_limit=AtMostTwo())
    close = Atoms("CO2", np.zeros((3, 3)))
    found = screen.check_pool(frame(close))
    assert found is not None
    assert (found.reason, found.detail) == ("too-large", "3 atoms")
    assert screen.check_pool(frame(Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]))) is None


def frame(atoms: Atoms, index: int = 0, file: str = "pool.extxyz") -> Frame:
    return Frame(atoms, Source(file, index), index)


@pytest.fixture
def screen() -> Screen:
    return Screen(GraphBuilder((1, 6, 8), 4.5))


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
        "out-of-range": Atoms("CO", [[0, 0, 0], [0, 0, 1e8]]),
        "out-of-range ": Atoms("CO", [[0, 0, 0], [0, 0, 1]], cell=[1e9] * 3, pbc=True),
        "no-neighbours": Atoms("CO", [[0, 0, 0], [0, 0, 9.0]]),
        "no-neighbours ": Atoms("CO", [[0, 0, 0], [9.0, 9.0, 9.0]], cell=4 * cell, pbc=True),
    }[kind]


KINDS = [
    "no-atoms", "non-finite", "non-finite ", "non-finite  ", "out-of-range", "out-of-range ",
    "bad-cell", "bad-cell ", "bad-cell  ", "bad-cell   ", "unknown-element", "unknown-element ",
    "atoms-too-close", "atoms-too-close ", "atoms-too-close  ", "isolated-atom",
    "isolated-atom ", "no-neighbours", "no-neighbours ",
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
    screen = Screen(None)
    assert screen.check_pool(frame(Atoms("UO", [[0, 0, 0], [0, 0, 9.0]]))) is None
    assert screen.check_pool(frame(Atoms("UO", [[0, 0, 0], [0, 0, 0.1]]))) is not None
    found = screen.check_pool(frame(Atoms([190, 8], [[0, 0, 0], [0, 0, 9.0]])))
    assert found is not None and found.reason == "unknown-element" and "190" in found.detail


def test_density_bound_never_hides_a_missing_neighbour() -> None:
    """Sparse crystals just inside and outside the cutoff are told apart."""
    screen = Screen(GraphBuilder((6,), 4.5))
    for number, spacing in enumerate(np.linspace(3.05, 7.05, 41)):
        found = screen.check_pool(frame(bulk("C", "fcc", a=spacing * np.sqrt(2)), number))
        assert (found is not None) == (spacing > 4.5), spacing


@given(
    seed=st.integers(0, 10**6),
    n_atoms=st.integers(1, 8),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    skew=st.floats(0, 3),
)
def test_nearest_distance_is_that_of_the_images(
    seed: int, n_atoms: int, pbc: tuple[bool, bool, bool], skew: float
) -> None:
    """Against every image of every atom, one by one."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2, 5, 3)) + skew * np.tril(rng.uniform(-2, 2, (3, 3)), -1)
    atoms = Atoms("C" * n_atoms, rng.uniform(-9, 9, (n_atoms, 3)), cell=cell, pbc=pbc)
    spans = [range(-8, 9) if periodic else (0,) for periodic in pbc]
    shifts = np.array(list(itertools.product(*spans))) @ cell
    # Bring the pairs together first, so that eight images are enough.
    delta = atoms.positions[:, None] - atoms.positions[None]
    scaled = np.linalg.solve(cell.T, delta.reshape(-1, 3).T).T
    scaled -= np.where(pbc, np.round(scaled), 0)
    separations = np.linalg.norm((scaled @ cell)[:, None] + shifts[None], axis=-1)
    separations = separations.reshape(n_atoms, n_atoms, -1)
    own = (shifts == 0).all(axis=1)
    separations[np.arange(n_atoms), np.arange(n_atoms), own.argmax()] = np.inf
    expected = separations.min()
    found = find_nearest_distance(atoms.positions, cell, atoms.pbc, 4.0)
    assert (expected > 4.0 and found > 4.0) or found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("length", [1e2, 1e4, 9e5])
def test_large_vacuum_costs_nothing(screen: Screen, water: Atoms, length: float) -> None:
    water.cell = [length] * 3
    water.pbc = True
    slab = bulk("C", "diamond", a=3.57) * (2, 2, 2)
    slab.cell[2] = [0, 0, length]
    slab.pbc = [True, True, False]
    flat = slab.copy()
    flat.cell[2] = 0
    start = time.perf_counter()
    assert [screen.check_pool(frame(a)) for a in (water, slab, flat)] == [None] * 3
    assert time.perf_counter() - start < 1.0


def test_input_is_not_modified(screen: Screen, water: Atoms) -> None:
    before = water.copy()
    screen.check_pool(frame(water))
    assert water == before
    assert water.info == before.info


CHARGED = GraphBuilder((1, 6, 8), 4.5, charge_range=(-1.0, 1.0), spin_range=(1.0, 3.0))


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({}, None),
        ({"charge": 1}, None),
        ({"total_charge": -1, "spin": 3}, None),
        ({"charge": 2}, "unknown-charge"),
        ({"total_charge": -2.0}, "unknown-charge"),
        ({"charge": float("nan")}, "unknown-charge"),
        ({"charge": "many"}, "unknown-charge"),
        ({"charge": 0, "total_charge": 1}, "unknown-charge"),
        ({"spin": 4}, "unknown-charge"),
        ({"total_spin": 0}, "unknown-charge"),
    ],
)
@pytest.mark.parametrize("check", ["check_content", "check_pool", "check_train"])
def test_a_model_s_charges_are_known(
    water: Atoms, info: dict[str, object], reason: str | None, check: str
) -> None:
    water.info.update(info)
    found = getattr(Screen(CHARGED), check)(frame(water))
    assert (None if found is None else found.reason) == reason
    for ignorant in (None, GraphBuilder((1, 8), 4.5)):
        assert getattr(Screen(ignorant), check)(frame(water)) is None


def test_what_equals_a_structure_that_was_set_aside_passes(water: Atoms) -> None:
    screen = Screen(CHARGED)
    charged = water.copy()
    charged.info["charge"] = 5
    assert screen.check_pool(frame(charged, 0)) is not None
    assert screen.check_pool(frame(water, 1)) is None


def test_an_atom_alone_is_set_aside_without_a_model_too() -> None:
    found = Screen(None).check_pool(frame(Atoms("U")))
    assert found is not None and found.reason == "isolated-atom"
    assert Screen(None).check_pool(frame(bulk("Cu"))) is None
