"""Kernels of sets of structures, by every representation."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from jaxtyping import Float32

from labelwise.errors import ArgumentError, StructureError
from labelwise.features.fill import find_rows
from labelwise.features.representations import (
    RepresentationOptions,
    StructureRepresentation,
    make_representation,
    represent,
)
from labelwise.features.store.memory import MemoryRows, RowCache
from labelwise.kernels.building import build_kernels, open_kernels
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials import Potential
from tests.selection.rules.oracles import gram


class Flawed(StructureRepresentation):
    """The number of atoms; not a number for single atoms."""

    name = "flawed"

    def size(self) -> int:
        return 1

    def compute(self, structures: list[Atoms]) -> Float32[np.ndarray, "n d"]:
        counts = [[len(atoms) if len(atoms) > 1 else np.nan] for atoms in structures]
        return np.array(counts, dtype=np.float32)


def test_sets_of_rows_are_cut_where_they_end(rattled_molecules: list[Atoms]) -> None:
    many = rattled_molecules * 20  # more than a chunk
    sets = [many[:7], [], many[7:300], many[300:]]
    kernels = build_kernels(sets, None, "random")
    assert [len(kernel) for kernel in kernels] == [7, 0, 293, 300]
    whole = LinearKernel(represent(many, None, "random"))
    np.testing.assert_allclose(
        gram(kernels[2], kernels[3]), gram(whole, whole)[7:300, 300:], atol=1e-6
    )


def test_one_scale_for_all_sets(potential: Potential, rattled_molecules: list[Atoms]) -> None:
    kernels = build_kernels(
        [rattled_molecules[:10], rattled_molecules[10:]], potential, normalise="none"
    )
    assert np.concatenate([kernel.diagonal() for kernel in kernels]).mean() == pytest.approx(1.0)


def test_no_structures_at_all() -> None:
    for name in ("random", "soap", "morgan"):
        assert [len(kernel) for kernel in build_kernels([[], []], None, name)] == [0, 0]


def test_features_that_are_not_finite(water: Atoms) -> None:
    with pytest.raises(StructureError, match="structure 1 of set 1 has flawed features"):
        build_kernels([[water], [water, Atoms("H")]], None, Flawed())
    rows = MemoryRows(Flawed())
    other = water.copy()
    other.rattle(0.1)
    places = find_rows([water, Atoms("H"), other], rows)
    assert (places >= 0).tolist() == [True, False, True]
    assert len(open_kernels(rows, [places[places >= 0]])[0]) == 2


def test_an_unknown_normalisation() -> None:
    with pytest.raises(ArgumentError, match="normalise is 'half'"):
        build_kernels([[]], None, "random", normalise="half")


@pytest.mark.parametrize("name", ["soap", "morgan"])
def test_remembered_rows_make_the_same_kernels(name: str, rattled_molecules: list[Atoms]) -> None:
    representation, memo = make_representation(name), RowCache()
    (expected,) = build_kernels([rattled_molecules], None, name)
    for structures in (rattled_molecules[:9], rattled_molecules, rattled_molecules):
        rows = memo.open(representation, RepresentationOptions())
        (kernel,) = open_kernels(rows, [find_rows(structures, rows)])
        n = len(structures)
        np.testing.assert_allclose(
            gram(kernel, kernel), gram(expected, expected)[:n, :n], atol=1e-6
        )
