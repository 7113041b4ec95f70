"""SOAP rows are DScribe's, whatever else a stream holds."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from dscribe.descriptors import SOAP

from labelwise.errors import MissingDependencyError, StructureError
from labelwise.features.representations import SparseRows, make_representation, represent
from labelwise.features.representations.soap import Soap
from labelwise.kernels import building as kernel_building
from labelwise.kernels.building import build_kernels
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.sparse import SparseLinearKernel
from tests.selection.rules.oracles import gram


def by_dscribe(structures: list[Atoms]) -> np.ndarray:
    """One dense row each, with the elements of all; crystals are periodic, molecules are not."""
    species = sorted({z for atoms in structures for z in atoms.numbers.tolist()})
    rows = []
    for atoms in structures:
        periodic = bool(atoms.pbc.any())
        soap = SOAP(
            species=species, r_cut=6.0, n_max=8, l_max=6, average="outer", periodic=periodic
        )
        rows.append(soap.create(atoms))
    return np.array(rows)


def cosine(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def organic() -> list[Atoms]:
    rattled = [molecule(name) for name in ("H2O", "CH4", "CH3CN", "CH3NO2", "N2")]
    rng = np.random.default_rng(0)
    for atoms in rattled:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return [*rattled, Atoms("H"), Atoms("O", positions=[[1.0, 2.0, 3.0]])]


def mixed() -> list[Atoms]:
    """Thirteen elements, molecules and crystals."""
    return [
        *organic(),
        bulk("NaCl", "rocksalt", a=5.64),
        bulk("Cu"),
        bulk("GaAs", "zincblende", a=5.65),
        bulk("MgO", "rocksalt", a=4.21, cubic=True),
        molecule("SiH4"),
        molecule("PH3"),
        bulk("Fe", cubic=True),
    ]


def test_columns_are_those_of_dscribe_for_the_elements_found() -> None:
    rows = represent(organic(), None, "soap")
    assert rows.shape == (7, 3696)
    np.testing.assert_allclose(rows, by_dscribe(organic()), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("most_dense", [100_000, 100])
def test_kernels_are_those_of_dscribe(most_dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_building, "MOST_DENSE_COLUMNS", most_dense)
    structures = mixed()
    train, empty, pool = build_kernels([structures[:6], [], structures[6:]], None, "soap")
    kind = LinearKernel if most_dense == 100_000 else SparseLinearKernel
    assert isinstance(train, kind) and isinstance(pool, kind)
    expected = cosine(by_dscribe(structures))
    np.testing.assert_allclose(gram(train, pool), expected[:6, 6:], atol=3e-7)
    np.testing.assert_allclose(gram(pool, pool), expected[6:, 6:], atol=3e-7)
    assert pool.block(slice(None), empty, slice(None)).shape == (len(pool), 0)


@pytest.mark.parametrize("most_dense", [8192, 0])
def test_one_common_scale(most_dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_building, "MOST_DENSE_COLUMNS", most_dense)
    structures = organic()
    train, pool = build_kernels([structures[:3], structures[3:]], None, "soap", normalise="none")
    rows = by_dscribe(structures)
    mean_square = np.square(rows).sum() / len(rows)
    np.testing.assert_allclose(gram(train, pool), rows[:3] @ rows[3:].T / mean_square, rtol=1e-5)


def test_supercells_and_slabs() -> None:
    crystal = bulk("MgO", "rocksalt", a=4.21)
    one, many = represent([crystal, crystal.repeat((2, 1, 1))], None, "soap")
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-6 * np.abs(one).max())
    slab = fcc111("Cu", (1, 1, 2))  # no third lattice vector
    slab.pbc = (True, True, False)
    padded = slab.copy()
    padded.center(vacuum=20.0, axis=2)
    padded.pbc = True
    one, many = represent([slab, padded], None, "soap")
    np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-6 * np.abs(one).max())
    slab.pbc = True
    with pytest.raises(StructureError, match="lacks lattice vectors"):
        represent([slab], None, "soap")


def test_names_of_columns() -> None:
    soap = make_representation("soap")
    assert isinstance(soap, Soap)
    rows = soap.compute([molecule("CH4")])
    assert isinstance(rows, SparseRows)
    names = soap.name_columns(rows.used_columns())
    assert (names[0], names[251], names[252], names[-1]) == ("H-H 0", "H-H 251", "H-C 0", "C-C 251")


def test_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dscribe", None)
    with pytest.raises(MissingDependencyError, match=r"labelwise\[descriptors\]"):
        make_representation("soap")
