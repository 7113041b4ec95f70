"""Rows that are kept: the same rows, and computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from jaxtyping import Float32

from labelwise.features.fill import find_rows
from labelwise.features.representations import (
    Representation,
    RepresentationOptions,
    SparseRows,
    StructureRepresentation,
    make_representation,
    represent,
)
from labelwise.features.store.memory import MemoryRows, RowCache
from labelwise.potentials import Potential

OPTIONS = RepresentationOptions()


class Counting(StructureRepresentation):
    """Number of atoms and mean height, and how often they were computed."""

    name = "counting"

    def __init__(self) -> None:
        self.n_computed = 0

    def size(self) -> int:
        return 2

    def compute(self, structures: Sequence[Atoms]) -> Float32[np.ndarray, "n d"]:
        self.n_computed += len(structures)
        rows = [(len(atoms), atoms.positions[:, 2].mean()) for atoms in structures]
        return np.array(rows, dtype=np.float32).reshape(-1, 2)


def joined(
    memo: RowCache,
    structures: list[Atoms],
    representation: Representation,
    options: RepresentationOptions = OPTIONS,
    potential: Potential | None = None,
) -> np.ndarray | SparseRows:
    rows = memo.open(representation, options, potential)
    return rows.take(find_rows(structures, rows, potential))


def test_rows_are_computed_once_and_stay_the_same(rattled_molecules: list[Atoms]) -> None:
    memo, representation = RowCache(), Counting()
    first = joined(memo, rattled_molecules[:20], representation)
    again = joined(memo, rattled_molecules[::-1], representation)
    assert representation.n_computed == len(rattled_molecules)
    np.testing.assert_array_equal(first, Counting().compute(rattled_molecules[:20]))
    np.testing.assert_array_equal(again, Counting().compute(rattled_molecules[::-1]))


def test_equal_structures_of_one_call_are_computed_once(water: Atoms) -> None:
    memo, representation = RowCache(), Counting()
    rows = joined(memo, [water, water.copy(), water], representation)
    assert representation.n_computed == 1
    assert rows.shape == (3, 2)
    np.testing.assert_array_equal(rows[0], rows[2])


def test_charge_tells_structures_apart(water: Atoms) -> None:
    memo, representation = RowCache(), Counting()
    ion = water.copy()
    ion.info["charge"] = 1
    joined(memo, [water, ion], representation)
    assert representation.n_computed == 2


def test_options_tell_rows_apart(rattled_molecules: list[Atoms]) -> None:
    memo = RowCache()
    for seed in (0, 1):
        options = RepresentationOptions(seed=seed)
        random = make_representation("random", options)
        rows = joined(memo, rattled_molecules, random, options)
        np.testing.assert_array_equal(rows, represent(rattled_molecules, None, random))


def test_a_full_memory_computes_again(rattled_molecules: list[Atoms]) -> None:
    memo, representation = RowCache(max_bytes=10 * 8), Counting()
    for _ in range(2):
        joined(memo, rattled_molecules, representation)
    assert memo.n_bytes <= 80
    assert representation.n_computed == 2 * len(rattled_molecules) - 10


def test_only_models_that_were_named_are_kept(
    rattled_molecules: list[Atoms], potential: Potential
) -> None:
    memo, representation = RowCache(), make_representation("activation", OPTIONS)
    expected = represent(rattled_molecules, potential, representation)
    for n_bytes in (0, expected.nbytes):
        if n_bytes:
            memo.keep(potential)
        for _ in range(2):
            found = joined(memo, rattled_molecules, representation, potential=potential)
            np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert memo.n_bytes == n_bytes


@pytest.mark.parametrize("name", ["soap", "morgan"])
def test_rows_of_structures_alone_are_kept(name: str, rattled_molecules: list[Atoms]) -> None:
    pytest.importorskip({"soap": "dscribe", "morgan": "rdkit"}[name])
    memo = RowCache()
    sizes = []
    for seed in (0, 1):  # neither has anything random in it
        options = RepresentationOptions(seed=seed)
        representation = make_representation(name, options)
        assert len(joined(memo, rattled_molecules, representation, options)) == 30
        sizes.append(memo.n_bytes)
    assert sizes[0] == sizes[1] > 0


def test_rows_come_in_any_order_and_go_when_they_are_taken(rattled_molecules: list[Atoms]) -> None:
    rows = MemoryRows(Counting())
    expected = Counting().compute(rattled_molecules)
    for part in np.array_split(expected, 7):
        rows.extend(part)
    places = np.array([29, 3, 3, 0, 17, 29])
    np.testing.assert_array_equal(rows.take(places), expected[places])
    assert len(rows) == 0
    assert rows.extend(expected).tolist() == list(range(30))
