"""Telling whether two structures are the same."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from ase import Atoms
from jaxtyping import Float64

#: Coordinates that differ by less than this are the same, Å.
TOLERANCE = 1e-6
_N_PROJECTIONS = 8
_N_CELL = 9
#: Narrow, so that a bin holds few of the many frames of one molecule, Å.
_LEAST_BIN_WIDTH = 2e-5


def hash_structure(atoms: Atoms) -> str:
    """Return a name for a structure's content, for records and manifests.

    The elements, the cell and the positions, rounded to 1e-6 Å, and the periodic
    directions are hashed; info keys and labels are not. Copies that passed through text
    can round to different names: ``DuplicateIndex`` compares with a tolerance.

    Args:
        atoms: The structure; positions and cell in Å.

    Returns:
        32 hexadecimal digits, the same on every machine.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(_species_key(atoms))
    # Adding zero turns -0.0 into 0.0.
    rounded = np.round(_coordinates(atoms) / TOLERANCE) + 0.0
    digest.update(rounded.astype("<f8").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Fingerprint:
    """What tells whether two structures are the same, without the structures.

    Attributes:
        species: Hash of the elements in their order and of the periodic directions, 16 bytes.
        n_atoms: Number of atoms.
        projections: (8,) float64, Å: fixed random projections of cell and positions.
    """

    species: bytes
    n_atoms: int
    projections: Float64[np.ndarray, " 8"]


def make_fingerprint(atoms: Atoms) -> Fingerprint:
    """Return a structure's fingerprint.

    Args:
        atoms: The structure, with finite positions and cell in Å.
    """
    return fingerprint_arrays(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc.tolist())


def fingerprint_arrays(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray | None,
    pbc: Sequence[bool],
) -> Fingerprint:
    """Return the fingerprint of a structure that is not an ``Atoms``.

    Args:
        numbers: (n,) atomic numbers.
        positions: (n, 3) Å, finite.
        cell: (3, 3) Å, finite; None is a cell of zeros.
        pbc: Three periodic directions.
    """
    weights = _weights(_N_CELL + positions.size)
    projections = positions.ravel() @ weights[_N_CELL:]
    if cell is not None:
        projections += cell.ravel() @ weights[:_N_CELL]
    species = hashlib.blake2b(bytes(pbc) + numbers.astype("<i4").tobytes(), digest_size=16)
    return Fingerprint(species.digest(), len(numbers), projections)


class DuplicateIndex:
    """The structures seen so far, for finding repeats.

    Two structures are duplicates when they have the same elements in the same order, the
    same periodic directions, and cells and positions that agree to 1e-6 Å. Moved,
    rotated or re-ordered copies are not: the kernel sees to those.

    Rounding coordinates to a grid would miss most copies that went through a text file,
    because in 3N coordinates one nearly always lies next to a grid boundary. So each
    structure is kept as eight fixed random projections of its coordinates, which
    differ between copies by at most 1e-6 Å times the projection's 1-norm. Memory
    is about 100 bytes a structure whatever its size.
    """

    def __init__(self) -> None:
        self._bins: dict[tuple[bytes, int], list[tuple[Float64[np.ndarray, " 8"], int]]] = {}
        self._n_seen = 0

    def __len__(self) -> int:
        return self._n_seen

    def find(self, structure: Atoms | Fingerprint) -> int | None:
        """Return the number given to an equal structure by ``add``, or None.

        Args:
            structure: The structure, with finite positions and cell in Å, or its fingerprint.
        """
        known = _as_fingerprint(structure)
        tolerance = _tolerance(known.n_atoms)
        home = _find_bin(known)
        for place in (home - 1, home, home + 1):
            for other, number in self._bins.get((known.species, place), ()):
                if (np.abs(other - known.projections) <= tolerance).all():
                    return number
        return None

    def add(self, structure: Atoms | Fingerprint, number: int) -> None:
        """Remember a structure under a number of the caller's choice.

        Args:
            structure: The structure, with finite positions and cell in Å, or its fingerprint.
            number: What ``find`` returns for its copies.
        """
        known = _as_fingerprint(structure)
        home = _find_bin(known)
        self._bins.setdefault((known.species, home), []).append((known.projections, number))
        self._n_seen += 1


def _find_bin(known: Fingerprint) -> int:
    """Return the bin of a structure; copies lie in the same one or next to it."""
    width = max(_LEAST_BIN_WIDTH, 2.0 * largest_tolerance(known.n_atoms))
    return math.floor(float(known.projections[0]) / width)


def _as_fingerprint(structure: Atoms | Fingerprint) -> Fingerprint:
    return structure if isinstance(structure, Fingerprint) else make_fingerprint(structure)


@lru_cache(maxsize=256)
def _largest_tolerance(n_atoms: int) -> float:
    return float(_tolerance(n_atoms).max())


def largest_tolerance(n_atoms: int) -> float:
    """Return the most by which a projection of equal structures may differ, Å."""
    return _largest_tolerance(n_atoms)


@lru_cache(maxsize=256)
def _tolerance(n_atoms: int) -> Float64[np.ndarray, " 8"]:
    """Return by how much the projections of equal structures may differ, Å."""
    # Rounding grows with the magnitude of the coordinates; 1e-6 Å is the meaning.
    weights = np.abs(_weights(_N_CELL + 3 * n_atoms))
    tolerance: Float64[np.ndarray, " 8"] = 1.001 * TOLERANCE * weights.sum(axis=0)
    return tolerance


def _coordinates(atoms: Atoms) -> Float64[np.ndarray, " n_coordinates"]:
    return np.concatenate([atoms.cell.array.ravel(), atoms.positions.ravel()])


def _species_key(atoms: Atoms) -> bytes:
    key: bytes = atoms.pbc.tobytes() + atoms.numbers.astype("<i4").tobytes()
    return key


@lru_cache(maxsize=256)
def _weights(n_coordinates: int) -> Float64[np.ndarray, "n_coordinates 8"]:
    """Return fixed weights with columns of unit 1-norm times sqrt(n).

    Scaled so that a projection's spread does not grow with the number of atoms.
    """
    weights = np.random.default_rng(20240229).standard_normal((n_coordinates, _N_PROJECTIONS))
    scaled: Float64[np.ndarray, "n_coordinates 8"] = weights / np.sqrt(n_coordinates)
    return scaled
