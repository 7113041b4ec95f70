from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matscipy.neighbours import neighbour_list

from labelwise.structures.images import estimate_pairs, find_pairs


@given(
    seed=st.integers(0, 10**6),
    n_atoms=st.integers(1, 9),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    skew=st.floats(0, 2),
    cutoff=st.floats(1.0, 6.0),
)
def test_pairs_are_those_of_a_cell_list(
    seed: int, n_atoms: int, pbc: tuple[bool, bool, bool], skew: float, cutoff: float
) -> None:
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2, 6, 3)) + skew * np.tril(rng.uniform(-2, 2, (3, 3)), -1)
    positions = rng.uniform(-9, 9, (n_atoms, 3))
    for axis in range(3):  # a cell list wants the atoms inside the cell in open directions
        if not pbc[axis]:
            positions = rng.uniform(0, 1, (n_atoms, 3)) @ cell
    found = find_pairs(positions, cell, np.array(pbc), cutoff)
    i, j, d, s = neighbour_list("ijdS", positions=positions, cell=cell, pbc=pbc, cutoff=cutoff)
    ours = sorted(zip(*(part.tolist() for part in (found[0], found[1], found[3])), strict=True))
    theirs = sorted(zip(i.tolist(), j.tolist(), s.tolist(), strict=True))
    assert ours == theirs
    assert np.sort(found[2]) == pytest.approx(np.sort(d), abs=1e-9)


def test_ten_thousand_angstrom_of_vacuum() -> None:
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1e4 - 0.7]])
    i, j, d, s = find_pairs(positions, np.eye(3) * 1e4, np.array([True] * 3), 4.5)
    assert (i.tolist(), j.tolist()) == ([0, 1], [1, 0])
    assert d == pytest.approx([0.7, 0.7])
    assert s.tolist() == [[0, 0, -1], [0, 0, 1]]


def test_pairs_of_a_long_chain_take_no_cell_list() -> None:
    n_atoms = 60_000
    positions = np.zeros((n_atoms, 3))
    positions[:, 0] = 1.2 * np.arange(n_atoms)
    i, j, d, _ = find_pairs(positions, np.eye(3), np.array([False] * 3), 3.0)
    assert np.bincount(i)[[0, 1, 30_000, -1]].tolist() == [2, 3, 4, 2]
    assert (np.diff(i) >= 0).all()
    assert (np.abs(j - i) <= 2).all()
    assert d == pytest.approx(1.2 * np.abs(j - i))


def test_atoms_on_top_of_each_other_are_a_pair() -> None:
    positions = np.zeros((2, 3))
    assert len(find_pairs(positions, np.eye(3), np.array([False] * 3), 2.0)[0]) == 2


@pytest.mark.parametrize("pbc", [True, False])
def test_pairs_are_counted_up_to_2000_atoms_and_estimated_beyond(pbc: bool) -> None:
    rng = np.random.default_rng(0)
    for n_atoms, tolerance in ((1500, 0.0), (6000, 0.05)):
        side = (10.0 * n_atoms) ** (1 / 3)
        positions = rng.uniform(0, side, (n_atoms, 3))
        cell, periodic = side * np.eye(3), np.array([pbc] * 3)
        found = len(find_pairs(positions, cell, periodic, 4.0)[0])
        assert estimate_pairs(positions, cell, periodic, 4.0) == pytest.approx(found, rel=tolerance)
