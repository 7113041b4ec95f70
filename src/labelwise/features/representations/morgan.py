"""``morgan``: which groups of bonded atoms a structure holds; needs no model.

Files of structures hold no bonds. They are perceived from the distances, and bond orders from
the bonds and the total charge. Where that fails, as it must for metals and for many transition
states, single bonds are taken, and ``remark`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float32, Int64

from labelwise.errors import MissingDependencyError
from labelwise.features.representations.base import (
    RepresentationOptions,
    StructureRepresentation,
    register_representation,
)
from labelwise.potentials.graphs import radius_edges
from labelwise.structures.electronic_state import get_charge

RADIUS = 3
N_BITS = 2048
#: Two atoms are bonded up to this multiple of the sum of their covalent radii.
BOND_FACTOR = 1.3

SINGLE_BONDS = "no bond orders found: single bonds taken"
NO_BONDS = "no bonds found: atoms alone taken"

_MAX_ITERATIONS = 1000  # of the search for valences, which can take exponential time


class Morgan(StructureRepresentation):
    """RDKit's Morgan fingerprint of radius 3 as 2,048 bits, for the Tanimoto kernel.

    Atoms closer than 1.3 times the sum of their covalent radii are bonded, across periodic
    boundaries too; a bond to an atom's own image is left out, and several bonds to the images
    of one atom are one. Bond orders and formal charges follow from the total charge in
    ``info`` (``total_charge`` or ``charge``, e, 0 by default). All hydrogens count. Neither
    orientation nor the order of the atoms matters, and where bonds do not change, nor do rows.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, section 3.2; Rogers and Hahn, J. Chem. Inf. Model. 50 (2010) 742; bond orders after
    Kim and Kim, Bull. Korean Chem. Soc. 36 (2015) 1769.
    """

    name = "morgan"
    takes_options = False
    kernel = "tanimoto"

    def __init__(self, _: RepresentationOptions) -> None:
        """Take no options.

        Raises:
            MissingDependencyError: RDKit is not installed.
        """
        if find_spec("rdkit") is None:
            raise MissingDependencyError("rdkit", "descriptors", "the representation 'morgan'")

    def size(self) -> int:
        """Return the number of bits."""
        return N_BITS

    def compute(self, structures: Sequence[Atoms]) -> Float32[np.ndarray, "n d"]:
        """Return (n, 2048) float32, zeros and ones.

        Raises:
            StructureError: atoms that coincide, or lattice vectors that are missing.
        """
        from rdkit import rdBase

        rows = np.zeros((len(structures), N_BITS), dtype=np.float32)
        with rdBase.BlockLogs():
            for row, atoms in zip(rows, structures, strict=True):
                row[:] = _fingerprint(_perceive(atoms)[0])
        return rows

    def remark(self, atoms: Atoms) -> str | None:
        """Say which bonds could not be perceived; None if all is well.

        Raises:
            StructureError: see ``compute``.
        """
        from rdkit import rdBase

        with rdBase.BlockLogs():
            return _perceive(atoms)[1]


def _perceive(atoms: Atoms) -> tuple[Any, str | None]:
    """Return the molecule with bonds as far as they can be had, and what was wrong."""
    bonds = _bonds(atoms)
    failures = (RuntimeError, ValueError)  # what RDKit raises, by kind of failure
    try:
        graph = _connect(atoms.numbers, bonds)
    except failures:
        return _connect(atoms.numbers, bonds[:0]), NO_BONDS
    try:
        return _with_orders(graph, _charge(atoms)), None
    except failures:
        return graph, SINGLE_BONDS


def _bonds(atoms: Atoms) -> Int64[np.ndarray, "b 2"]:
    """Return the pairs of atoms that are close enough, each once."""
    radii = _covalent_radii()[atoms.numbers]
    cutoff = 2.0 * BOND_FACTOR * float(radii.max())
    positions = np.array(atoms.positions, dtype=np.float64)
    cell = np.array(atoms.cell, dtype=np.float64)
    (i, j), shifts = radius_edges(positions - positions.mean(axis=0), cell, atoms.pbc, cutoff)
    distance = np.linalg.norm(positions[j] - positions[i] + shifts @ cell, axis=1)
    is_bond = (i < j) & (distance <= BOND_FACTOR * (radii[i] + radii[j]))
    return np.unique(np.stack((i[is_bond], j[is_bond]), axis=1), axis=0)


def _connect(numbers: Int64[np.ndarray, " N"], bonds: Int64[np.ndarray, "b 2"]) -> Any:
    """Return a molecule of single bonds whose atoms are in an order of their own.

    The search for bond orders takes atoms as they come; in an order that the graph alone
    decides, its result is a matter of the graph, too.
    """
    from rdkit import Chem

    editable = Chem.RWMol()
    for number in numbers.tolist():
        atom = Chem.Atom(number)
        atom.SetNoImplicit(True)
        editable.AddAtom(atom)
    for i, j in bonds.tolist():
        editable.AddBond(i, j, Chem.BondType.SINGLE)
    editable.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(editable)
    ranks = Chem.CanonicalRankAtoms(editable, breakTies=True, includeChirality=False)
    graph = Chem.RenumberAtoms(editable, np.argsort(ranks).tolist())
    graph.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(graph)
    return graph


def _with_orders(graph: Any, charge: int) -> Any:
    """Return the molecule with bond orders.

    Raises:
        ValueError: none fit the charge and the valences.
    """
    from rdkit import Chem
    from rdkit.Chem.rdDetermineBonds import DetermineBondOrders

    molecule = Chem.RWMol(graph)
    DetermineBondOrders(molecule, charge=charge, embedChiral=False, maxIterations=_MAX_ITERATIONS)
    Chem.SanitizeMol(molecule)
    return molecule


def _charge(atoms: Atoms) -> int:
    """Return the total charge in ``info``, e.

    Raises:
        ValueError: it is not a whole number.
    """
    charge = get_charge(atoms)
    if charge != round(charge):
        raise ValueError(f"the charge is {charge}")
    return round(charge)


def _fingerprint(molecule: Any) -> np.ndarray:
    """Return (2048,) uint8, zeros and ones."""
    bits: np.ndarray = _generator().GetFingerprintAsNumPy(molecule)
    return bits


@cache
def _generator() -> Any:
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    return GetMorganGenerator(radius=RADIUS, fpSize=N_BITS)


@cache
def _covalent_radii() -> np.ndarray:
    """Return RDKit's covalent radii by atomic number, Å."""
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    return np.array([table.GetRcovalent(z) for z in range(119)])


register_representation(Morgan.name, Morgan)
