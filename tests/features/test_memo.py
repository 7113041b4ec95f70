"""Rows that are kept: the same rows, and computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from jaxtyping import Float32

from labelwise.features.memo import FeatureMemo
from labelwise.features.representations import (
    RepresentationOptions,
    StructureRepresentation,
    make_representation,
    represent,
)
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


def joined(memo: FeatureMemo, structures: list[Atoms], representation: Counting) -> np.ndarray:
    return np.concatenate(list(memo.iter_features(structures, None, representation, OPTIONS)))


def test_rows_are_computed_once_and_stay_the_same(rattled_molecules: list[Atoms]) -> None:
    memo, representation = FeatureMemo(), Counting()
    first = joined(memo, rattled_molecules[:20], representation)
    again = joined(memo, rattled_molecules[::-1], representation)
    assert representation.n_computed == len(rattled_molecules)
    np.testing.assert_array_equal(first, Counting().compute(rattled_molecules[:20]))
    np.testing.assert_array_equal(again, Counting().compute(rattled_molecules[::-1]))


def test_equal_structures_of_one_call_are_computed_once(water: Atoms) -> None:
    memo, representation = FeatureMemo(), Counting()
    rows = joined(memo, [water, water.copy(), water], representation)
    assert representation.n_computed == 1
    assert rows.shape == (3, 2)
    np.testing.assert_array_equal(rows[0], rows[2])


def test_charge_tells_structures_apart(water: Atoms) -> None:
    memo, representation = FeatureMemo(), Counting()
    ion = water.copy()
    ion.info["charge"] = 1
    joined(memo, [water, ion], representation)
    assert representation.n_computed == 2


def test_options_tell_rows_apart(rattled_molecules: list[Atoms]) -> None:
    memo = FeatureMemo()
    for seed in (0, 1):
        options = RepresentationOptions(seed=seed)
        random = make_representation("random", options)
        rows = np.concatenate(list(memo.iter_features(rattled_molecules, None, random, options)))
        np.testing.assert_array_equal(rows, represent(rattled_molecules, None, random))


def test_a_full_memory_computes_again(rattled_molecules: list[Atoms]) -> None:
    memo, representation = FeatureMemo(max_bytes=10 * 8), Counting()
    for _ in range(2):
        joined(memo, rattled_molecules, representation)
    assert memo.n_bytes <= 80
    assert representation.n_computed == 2 * len(rattled_molecules) - 10


def test_only_models_that_were_named_are_kept(
    rattled_molecules: list[Atoms], potential: Potential
) -> None:
    memo, representation = FeatureMemo(), make_representation("activation", OPTIONS)
    expected = represent(rattled_molecules, potential, representation)
    for n_bytes in (0, expected.nbytes):
        if n_bytes:
            memo.keep(potential)
        for _ in range(2):
            chunks = memo.iter_features(rattled_molecules, potential, representation, OPTIONS)
            np.testing.assert_allclose(np.concatenate(list(chunks)), expected, rtol=1e-5)
        assert memo.n_bytes == n_bytes


@pytest.mark.parametrize("name", ["soap", "morgan"])
def test_rows_of_structures_alone_are_kept(name: str, rattled_molecules: list[Atoms]) -> None:
    pytest.importorskip({"soap": "dscribe", "morgan": "rdkit"}[name])
    memo = FeatureMemo()
    sizes = []
    for seed in (0, 1):  # neither has anything random in it
        options = RepresentationOptions(seed=seed)
        representation = make_representation(name, options)
        chunks = list(memo.iter_features(rattled_molecules, None, representation, options))
        assert sum(len(chunk) for chunk in chunks) == len(rattled_molecules)
        sizes.append(memo.n_bytes)
    assert sizes[0] == sizes[1] > 0
