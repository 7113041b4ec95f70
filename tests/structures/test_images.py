from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matscipy.neighbours import neighbour_list

from labelwise.structures.images import find_pairs


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
