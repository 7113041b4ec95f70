"""Structures as radius graphs: one structure (``Graph``) and many of them (``Batch``).

A ``Graph`` is plain NumPy, so that worker processes can build and send it; a ``Batch`` is
torch, on the device and in the floating-point type of the potential.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from jaxtyping import Bool, Float, Float64, Int32, Int64
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray
from torch import Tensor

from labelwise.errors import ArgumentError, LabelwiseWarning, StructureError
from labelwise.structures.electronic_state import (
    DEFAULT_CHARGE,
    DEFAULT_SPIN,
    describe_charge,
    describe_spin,
    get_charge,
    get_spin,
)
from labelwise.structures.images import find_pairs

# Below this many atoms all pairs at once in NumPy beat a cell list (measured: 20 µs against
# 70 µs for 13 atoms, equal near 90).
_ALL_PAIRS_ATOMS = 64
# A cell list takes memory for every bin: 10,000 Å of vacuum on each side exhaust it.
_MAX_BINS = 1_000_000


@dataclass(frozen=True, slots=True)
class Graph:
    """One structure and its neighbour list, on the CPU and picklable.

    Attributes:
        positions: (n_atoms, 3) float64, Å, centred on their mean (so that single precision
            does not suffer from a structure far from the origin).
        numbers: (n_atoms,) int64, atomic numbers.
        species: (n_atoms,) int64, places of the atoms' elements in ``Potential.elements``.
        edge_index: (2, n_edges) int64, sender and receiver of each directed edge.
        unit_shifts: (n_edges, 3) int32, periodic images: the edge vector is
            ``positions[receiver] - positions[sender] + unit_shifts @ cell``.
        cell: (3, 3) float64, Å, rows are the lattice vectors (zeros if there are none).
        charge: Total charge, e.
        spin: Spin multiplicity, 2S + 1.
    """

    positions: Float64[np.ndarray, "n_atoms 3"]
    numbers: Int64[np.ndarray, " n_atoms"]
    species: Int64[np.ndarray, " n_atoms"]
    edge_index: Int64[np.ndarray, "2 n_edges"]
    unit_shifts: Int32[np.ndarray, "n_edges 3"]
    cell: Float64[np.ndarray, "3 3"]
    charge: float = 0.0
    spin: float = 1.0

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.positions)

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return int(self.edge_index.shape[1])

    @property
    def formula(self) -> str:
        """Composition in the order of the atomic numbers, for messages."""
        counts = zip(*np.unique(self.numbers, return_counts=True), strict=True)
        return "".join(f"{chemical_symbols[z]}{n if n > 1 else ''}" for z, n in counts)


@dataclass(frozen=True, slots=True)
class Batch:
    """Many structures as one disconnected graph, atoms and edges in the structures' order.

    Attributes:
        positions: (n_atoms, 3) floating point, Å.
        species: (n_atoms,) int64, places in ``Potential.elements``.
        structure_idx: (n_atoms,) int64, the structure that each atom belongs to.
        edge_index: (2, n_edges) int64, sender and receiver.
        unit_shifts: (n_edges, 3) floating point, periodic images.
        shifts: (n_edges, 3) floating point, Å, ``unit_shifts @ cell``.
        cells: (n_structures, 3, 3) floating point, Å.
        charges: (n_structures,) floating point, e.
        spins: (n_structures,) floating point, multiplicities.
        atom_counts: Atoms of each structure.
        edge_counts: Edges of each structure.
    """

    positions: Float[Tensor, "n_atoms 3"]
    species: Int64[Tensor, " n_atoms"]
    structure_idx: Int64[Tensor, " n_atoms"]
    edge_index: Int64[Tensor, "2 n_edges"]
    unit_shifts: Float[Tensor, "n_edges 3"]
    shifts: Float[Tensor, "n_edges 3"]
    cells: Float[Tensor, "n_structures 3 3"]
    charges: Float[Tensor, " n_structures"]
    spins: Float[Tensor, " n_structures"]
    atom_counts: tuple[int, ...]
    edge_counts: tuple[int, ...]

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return len(self.atom_counts)

    @property
    def n_atoms(self) -> int:
        """Number of atoms in all structures."""
        return len(self.positions)

    @property
    def n_edges(self) -> int:
        """Number of directed edges in all structures."""
        return int(self.edge_index.shape[1])

    def split(self) -> Iterator[Batch]:
        """Yield each structure as a batch of its own, in order."""
        atom = edge = 0
        counts = zip(self.atom_counts, self.edge_counts, strict=True)
        for i, (n_atoms, n_edges) in enumerate(counts):
            atoms = slice(atom, atom + n_atoms)
            edges = slice(edge, edge + n_edges)
            yield Batch(
                positions=self.positions[atoms],
                species=self.species[atoms],
                structure_idx=torch.zeros_like(self.structure_idx[atoms]),
                edge_index=self.edge_index[:, edges] - atom,
                unit_shifts=self.unit_shifts[edges],
                shifts=self.shifts[edges],
                cells=self.cells[i : i + 1],
                charges=self.charges[i : i + 1],
                spins=self.spins[i : i + 1],
                atom_counts=(n_atoms,),
                edge_counts=(n_edges,),
            )
            atom, edge = atoms.stop, edges.stop


@dataclass(frozen=True)
class GraphBuilder:
    """Turns ``ase.Atoms`` into graphs; small and picklable, so that it can go to workers.

    Attributes:
        elements: Atomic numbers that the potential knows, in its order.
        cutoff: Radius of the neighbour list, Å.
        charge_range: Total charges that the potential knows, inclusive; None if it ignores them.
        spin_range: The same for the multiplicity.
    """

    elements: tuple[int, ...]
    cutoff: float
    charge_range: tuple[float, float] | None = None
    spin_range: tuple[float, float] | None = None
    _place: Int64[np.ndarray, " 119"] = field(init=False, repr=False, compare=False)
    _ignored: IgnoredStates = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        place = np.full(max(len(chemical_symbols), *(z + 1 for z in self.elements)), -1)
        place[list(self.elements)] = np.arange(len(self.elements))
        object.__setattr__(self, "_place", place)
        ignored = IgnoredStates(self.charge_range is None, self.spin_range is None)
        object.__setattr__(self, "_ignored", ignored)

    def __call__(self, atoms: Atoms) -> Graph:
        """Build the graph of one structure; ``atoms`` is not modified.

        Total charge and multiplicity are those of ``get_charge`` and ``get_spin``, for a
        potential that knows them.

        Args:
            atoms: The structure, positions and cell in Å.

        Returns:
            Its graph.

        Raises:
            StructureError: no atoms, an element that the potential does not know, values that
                are not finite, coincident atoms, a periodic direction without a lattice vector,
                or a charge or multiplicity that the potential does not know.
        """
        numbers = atoms.numbers.astype(np.int64)
        positions = np.array(atoms.positions, dtype=np.float64)
        cell = np.array(atoms.cell, dtype=np.float64)
        self._check(numbers, positions, cell, atoms)
        positions -= positions.mean(axis=0)
        edge_index, unit_shifts = radius_edges(positions, cell, atoms.pbc, self.cutoff)
        charge, spin = self.charge_and_spin(atoms)
        return Graph(
            positions=positions,
            numbers=numbers,
            species=self._place[numbers],
            edge_index=edge_index,
            unit_shifts=unit_shifts,
            cell=cell,
            charge=charge,
            spin=spin,
        )

    def charge_and_spin(self, atoms: Atoms) -> tuple[float, float]:
        """Return the total charge (e) and the multiplicity that a structure asks for.

        Raises:
            StructureError: one that the potential does not know, or no number.

        Warns:
            LabelwiseWarning: the potential takes none, and structures that it was asked for
                have different ones; once in its life.
        """
        self._ignored.see(atoms)
        return (
            _checked(atoms, "charge", get_charge, DEFAULT_CHARGE, self.charge_range),
            _checked(atoms, "spin", get_spin, DEFAULT_SPIN, self.spin_range),
        )

    def _check(
        self,
        numbers: Int64[np.ndarray, " n_atoms"],
        positions: Float64[np.ndarray, "n_atoms 3"],
        cell: Float64[np.ndarray, "3 3"],
        atoms: Atoms,
    ) -> None:
        if len(numbers) == 0:
            raise StructureError("a structure without atoms has no energy; remove it")
        unknown = {int(z) for z in numbers if not 0 <= z < len(self._place) or self._place[z] < 0}
        if unknown:
            known = " ".join(chemical_symbols[z] for z in sorted(self.elements))
            came = ", ".join(_symbol(z) for z in sorted(unknown))
            raise StructureError(
                f"{atoms.get_chemical_formula()} contains {came}, which the potential does not "
                f"know (known: {known}); set the structure aside or use another potential"
            )
        if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
            raise StructureError(
                f"{atoms.get_chemical_formula()} has positions or a cell that are not finite; "
                "set the structure aside"
            )


class IgnoredStates:
    """Watches for charges and multiplicities that differ and that a potential does not take.

    Args:
        charge: Whether it ignores the total charge.
        spin: Whether it ignores the multiplicity.
    """

    def __init__(self, charge: bool, spin: bool) -> None:
        self._describe = {
            name: describe
            for name, describe, is_ignored in (
                ("total charge", describe_charge, charge),
                ("multiplicity", describe_spin, spin),
            )
            if is_ignored
        }
        self._names = tuple(self._describe)
        self._first: dict[str, str] = {}

    def see(self, atoms: Atoms) -> None:
        """Look at a structure; warn if it is the first that differs from those before."""
        different = []
        for name, describe in self._describe.items():
            found = describe(atoms)
            first = self._first.setdefault(name, found)
            if found != first:
                different.append(f"{name} ({first} and {found})")
        if different:
            self._describe = {}  # it is said once
            warnings.warn(
                f"the model takes no {' and no '.join(self._names)}, and structures differ in "
                f"{' and '.join(different)}: those of one geometry look alike to it, charged "
                "ones like neutral ones; use a model that takes it, or keep to one state",
                LabelwiseWarning,
                stacklevel=3,
            )


def _symbol(z: int) -> str:
    return chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"atomic number {z}"


def _checked(
    atoms: Atoms,
    name: str,
    get: Callable[[Atoms], float],
    default: float,
    known: tuple[float, float] | None,
) -> float:
    """Return what a structure asks for, checked; the default if the potential ignores it."""
    if known is None:
        return default
    value = get(atoms)
    if not known[0] <= value <= known[1]:
        raise StructureError(
            f"{atoms.get_chemical_formula()} has a total {name} of {value:g}; the potential knows "
            f"{known[0]:g} to {known[1]:g}"
        )
    return value


def radius_edges(
    positions: Float64[np.ndarray, "n_atoms 3"],
    cell: Float64[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "axes=3"],
    cutoff: float,
) -> tuple[Int64[np.ndarray, "2 n_edges"], Int32[np.ndarray, "n_edges 3"]]:
    """Find every pair of atoms (and periodic images) closer than the cutoff.

    Args:
        positions: (n_atoms, 3), Å.
        cell: (3, 3), Å, rows are lattice vectors; those of open directions are ignored.
        pbc: (3,) bool.
        cutoff: Å.

    Returns:
        edge_index (2, n_edges) int64 and unit_shifts (n_edges, 3) int32, see ``Graph``.

    Raises:
        StructureError: coincident atoms, or lattice vectors of periodic directions that are
            zero or linearly dependent.
    """
    if not pbc.any() and len(positions) <= _ALL_PAIRS_ATOMS:
        sender, receiver = _all_pairs(positions, cutoff)
        return np.stack((sender, receiver)), np.zeros((len(sender), 3), dtype=np.int32)
    box = _closed_cell(positions, cell, pbc, cutoff)
    if abs(np.linalg.det(box)) > _MAX_BINS * cutoff**3:
        sender, receiver, distance, shift = find_pairs(positions, box, pbc, cutoff)
    else:
        sender, receiver, distance, shift = neighbour_list(
            "ijdS", cutoff=cutoff, positions=positions, cell=box, pbc=pbc
        )
    edge_index = np.stack((sender, receiver)).astype(np.int64)
    if len(distance) and distance.min() < 1e-6:
        _raise_coincident(edge_index[0], edge_index[1], distance)
    return edge_index, shift.astype(np.int32)


def _all_pairs(
    positions: Float64[np.ndarray, "n_atoms 3"], cutoff: float
) -> tuple[Int64[np.ndarray, " n_edges"], Int64[np.ndarray, " n_edges"]]:
    difference = positions[:, None] - positions
    squared = np.einsum("ijk,ijk->ij", difference, difference)
    np.fill_diagonal(squared, np.inf)
    sender, receiver = np.nonzero(squared < cutoff * cutoff)
    if squared.min() < 1e-12:
        _raise_coincident(sender, receiver, squared[sender, receiver])
    return sender, receiver


def _raise_coincident(
    sender: Int64[np.ndarray, " n_edges"],
    receiver: Int64[np.ndarray, " n_edges"],
    distance: Float64[np.ndarray, " n_edges"],
) -> None:
    k = int(distance.argmin())
    raise StructureError(
        f"atoms {sender[k]} and {receiver[k]} lie on top of each other; set the structure aside"
    )


def _closed_cell(
    positions: Float64[np.ndarray, "n_atoms 3"],
    cell: Float64[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "axes=3"],
    cutoff: float,
) -> Float64[np.ndarray, "3 3"]:
    """Replace the vectors of open directions by normals of the periodic ones.

    The box only has to hold all atoms; a vector left as it is could be zero or lie in the
    plane of the periodic ones.
    """
    periodic = cell[pbc]
    rank = np.linalg.matrix_rank(periodic, tol=1e-6) if len(periodic) else 0
    if rank < len(periodic):
        raise StructureError(
            f"pbc is {pbc.tolist()}, but the lattice vectors of the periodic directions are zero "
            "or linearly dependent; give the structure a cell or set pbc to False"
        )
    box = cell.copy()
    if pbc.all():
        return box
    normals = np.linalg.svd(periodic)[2][len(periodic) :] if len(periodic) else np.eye(3)
    extent = 2.0 * np.linalg.norm(positions, axis=1).max() + 2.0 * cutoff
    box[~pbc] = normals * extent
    return box


def collate(
    graphs: Sequence[Graph], *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Batch:
    """Join graphs into one batch on the device.

    Args:
        graphs: At least one graph.
        dtype: Floating-point type of the batch.
        device: Where the batch is wanted.

    Returns:
        The batch, structures in the order given.

    Raises:
        ArgumentError: no graphs.
    """
    if not graphs:
        raise ArgumentError("graphs is empty: a batch needs at least one structure")
    atom_counts = tuple(graph.n_atoms for graph in graphs)
    edge_counts = tuple(graph.n_edges for graph in graphs)
    offsets = itertools.accumulate(atom_counts[:-1], initial=0)
    edges = [graph.edge_index + offset for graph, offset in zip(graphs, offsets, strict=True)]

    def real(array: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(array).to(device=device, dtype=dtype)

    def whole(array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(device=device)

    return Batch(
        positions=real(np.concatenate([graph.positions for graph in graphs])),
        species=whole(np.concatenate([graph.species for graph in graphs])),
        structure_idx=whole(np.repeat(np.arange(len(graphs)), atom_counts)),
        edge_index=whole(np.concatenate(edges, axis=1)),
        unit_shifts=real(np.concatenate([graph.unit_shifts for graph in graphs]).astype(float)),
        shifts=real(np.concatenate([graph.unit_shifts @ graph.cell for graph in graphs])),
        cells=real(np.stack([graph.cell for graph in graphs])),
        charges=real(np.array([graph.charge for graph in graphs])),
        spins=real(np.array([graph.spin for graph in graphs])),
        atom_counts=atom_counts,
        edge_counts=edge_counts,
    )
