"""Bonds from positions, and fingerprints of them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.cluster import Octahedron
from rdkit import Chem
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from labelwise.errors import ArgumentError, MissingDependencyError
from labelwise.features.representations import make_representation, represent
from labelwise.features.representations.morgan import SINGLE_BONDS, Morgan
from labelwise.kernels.building import build_kernels
from labelwise.kernels.tanimoto import TanimotoKernel

SMILES = {
    "H2O": "O",
    "CH3CHO": "CC=O",
    "C6H6": "c1ccccc1",
    "HCN": "C#N",
    "CO2": "O=C=O",
    "C3H4_C3v": "CC#C",
    "CH3CONH2": "CC(N)=O",
}


def of_smiles(smiles: str) -> np.ndarray:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    return GetMorganGenerator(radius=3, fpSize=2048).GetFingerprintAsNumPy(molecule)


def stretched() -> Atoms:
    """A hydrogen on its way to a carbon that has four already."""
    return molecule("CH4") + Atoms("H", positions=[[0.0, 0.0, 1.1]])


@pytest.mark.parametrize(("name", "smiles"), SMILES.items())
def test_molecules_have_the_fingerprint_of_their_smiles(name: str, smiles: str) -> None:
    morgan = make_representation("morgan")
    assert isinstance(morgan, Morgan)
    assert morgan.remark(molecule(name)) is None
    np.testing.assert_array_equal(represent([molecule(name)], None, "morgan")[0], of_smiles(smiles))


def test_the_charge_counts() -> None:
    ammonium = molecule("NH3")
    ammonium += Atoms("H", positions=[ammonium.positions[0] + [0.0, 0.0, 1.0]])
    morgan = make_representation("morgan")
    assert isinstance(morgan, Morgan)
    assert morgan.remark(ammonium) == SINGLE_BONDS
    for charge in ("half", 0.5, None):
        ammonium.info["charge"] = charge
        assert morgan.remark(ammonium) == SINGLE_BONDS
    ammonium.info["charge"] = 1
    assert morgan.remark(ammonium) is None
    np.testing.assert_array_equal(morgan.compute([ammonium])[0], of_smiles("[NH4+]"))


@pytest.mark.parametrize(
    "atoms",
    [stretched(), bulk("Cu"), Octahedron("Au", 4, 0), bulk("NaCl", "rocksalt", a=5.64), Atoms("H")],
    ids=["transition state", "crystal", "cluster", "salt", "atom"],
)
def test_what_has_no_bond_orders_still_has_a_fingerprint(atoms: Atoms) -> None:
    morgan = make_representation("morgan")
    assert isinstance(morgan, Morgan)
    assert morgan.remark(atoms) == SINGLE_BONDS
    assert morgan.compute([atoms]).any()


def test_bonds_cross_periodic_boundaries() -> None:
    inside = molecule("CH3CHO", cell=[9.0, 9.0, 9.0], pbc=True)
    inside.center()
    across = inside.copy()
    across.positions += [4.5, 4.4, 4.3]
    across.wrap()
    rows = represent([molecule("CH3CHO"), inside, across], None, "morgan")
    assert len(np.unique(rows, axis=0)) == 1


def test_the_order_of_atoms_does_not_matter_where_bonds_could_be_drawn_in_two_ways() -> None:
    acetate = molecule("CH3COOH")
    acid_hydrogen = 3 + int(np.argmax(acetate.get_distances(1, range(8))[3:]))
    del acetate[acid_hydrogen if acetate[acid_hydrogen].symbol == "H" else 4]
    acetate.info["charge"] = -1
    rng = np.random.default_rng(0)
    copies = [acetate[rng.permutation(len(acetate))] for _ in range(20)]
    assert len(np.unique(represent(copies, None, "morgan"), axis=0)) == 1


def test_kernels_compare_bits() -> None:
    structures = [molecule(name) for name in SMILES]
    train, pool = build_kernels([structures[:2], structures[2:]], None, "morgan")
    assert isinstance(train, TanimotoKernel) and isinstance(pool, TanimotoKernel)
    bits = np.array([of_smiles(smiles) for smiles in SMILES.values()], dtype=bool)
    both = (bits[:2, None] & bits[2:]).sum(axis=2)
    either = (bits[:2, None] | bits[2:]).sum(axis=2)
    np.testing.assert_allclose(train.block(slice(None), pool, slice(None)), both / either)
    with pytest.raises(ArgumentError, match="knows no lengths"):
        build_kernels([structures], None, "morgan", normalise="none")


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    represent([stretched(), bulk("Cu")], None, "morgan")
    assert capfd.readouterr() == ("", "")


def test_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(MissingDependencyError, match=r"labelwise\[descriptors\]"):
        make_representation("morgan")
