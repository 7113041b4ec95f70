"""Structures packed small enough that thousands fit into a page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from jaxtyping import Float32, Float64, Int16

from labelwise.pages.document import StructureSet
from labelwise.structures.fixed_atoms import free_atoms

#: Bytes that an atom takes, before compression.
BYTES_AN_ATOM = 8
_MOST = 32767


class StructurePacker:
    """Takes structures in, one after another, each once.

    Args:
        max_bytes: Room for atoms before compression; what does not fit is left out.
    """

    def __init__(self, *, max_bytes: int = 4_000_000) -> None:
        self._left = max_bytes
        self._places: dict[str, int] = {}
        self._structures: list[tuple[str, Atoms, Float64[np.ndarray, " atoms"] | None]] = []

    def __len__(self) -> int:
        """Return the number of structures taken in."""
        return len(self._structures)

    def add(
        self,
        name: str,
        atoms: Atoms,
        *,
        atom_values: Float64[np.ndarray, " atoms"] | None = None,
        must_fit: bool = False,
    ) -> int:
        """Take a structure in and return its place, or -1 where there is no room.

        Args:
            name: ``file@frame``; a name that is there already keeps its place.
            atoms: The structure; not modified. Coordinates in Å.
            atom_values: A number for each atom, to colour by.
            must_fit: Whether it is taken even if room has run out.
        """
        place = self._places.get(name)
        if place is not None:
            return place
        size = BYTES_AN_ATOM * len(atoms)
        if size > self._left and not must_fit:
            return -1
        self._left -= size
        self._places[name] = len(self._structures)
        self._structures.append((name, atoms, atom_values))
        return len(self._structures) - 1

    def find(self, name: str) -> int:
        """Return the place of a structure, -1 if it was not taken in."""
        return self._places.get(name, -1)

    def pack(self, *, atom_label: str = "") -> StructureSet | None:
        """Return everything that was taken in, None if that is nothing.

        Args:
            atom_label: What the numbers of atoms are, with their unit.
        """
        if not self._structures:
            return None
        all_atoms = [atoms for _, atoms, _ in self._structures]
        packed = [_quantise(atoms.get_positions()) for atoms in all_atoms]
        return StructureSet(
            names=tuple(name for name, _, _ in self._structures),
            formulas=tuple(atoms.get_chemical_formula() for atoms in all_atoms),
            starts=np.cumsum([0, *map(len, all_atoms)], dtype=np.int32),
            numbers=np.concatenate([atoms.numbers for atoms in all_atoms]).astype(np.uint8),
            positions=np.concatenate([positions for positions, _ in packed]),
            scales=np.array([scale for _, scale in packed], dtype=np.float32),
            cells=np.array([_cell_of(atoms) for atoms in all_atoms], dtype=np.float32),
            atom_values=_join_values(all_atoms, [values for _, _, values in self._structures]),
            atom_label=atom_label,
            fixed=_join_fixed(all_atoms),
        )


def _quantise(
    positions: Float64[np.ndarray, "atoms 3"],
) -> tuple[Int16[np.ndarray, "atoms 3"], float]:
    """Return coordinates as whole numbers, and Å per unit."""
    if len(positions) == 0:
        return np.zeros((0, 3), dtype=np.int16), 1.0
    largest = float(np.abs(positions).max())
    scale = largest / _MOST if largest > 0 else 1.0
    return np.round(positions / scale).astype(np.int16), scale


def _cell_of(atoms: Atoms) -> Float32[np.ndarray, " nine"]:
    """Return nine lattice components, NaN for a structure that does not repeat."""
    cell = atoms.get_cell()[:] if atoms.pbc.any() else np.full((3, 3), np.nan)
    return np.asarray(cell, dtype=np.float32).ravel()


def _join_values(
    all_atoms: Sequence[Atoms], values: Sequence[np.ndarray | None]
) -> Float32[np.ndarray, " a"] | None:
    if all(found is None for found in values):
        return None
    parts = [
        np.full(len(atoms), np.nan) if found is None else found
        for atoms, found in zip(all_atoms, values, strict=True)
    ]
    return np.concatenate(parts).astype(np.float32)


def _join_fixed(all_atoms: Sequence[Atoms]) -> np.ndarray | None:
    fixed = [~np.asarray(free_atoms(atoms)) for atoms in all_atoms]
    return np.concatenate(fixed).astype(np.uint8) if any(part.any() for part in fixed) else None
