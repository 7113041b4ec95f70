"""Telling whether two structures are the same."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from labelwise.structures.electronic_state import encode_state

#: Coordinates that differ by no more than this are the same, Å.
TOLERANCE = 1e-6
#: Fingerprints keep cell and positions of structures that have no more numbers in them than
#: this: 21 atoms, 576 bytes.
MOST_COORDINATES = 72
_N_PROJECTIONS = 8
_N_CELL = 9
#: By how much of a bin's width equal structures may differ in one of the projections by which
#: structures are sorted into bins.
_REACH = 0.25


def hash_structure(atoms: Atoms) -> str:
    """Return a name for a structure's content, for records and manifests.

    The elements, the cell and the positions, rounded to 1e-6 Å, the periodic directions and
    the electronic state (see ``encode_state``) are hashed; other info keys and labels are not.
    Copies that passed through text can round to different names: ``DuplicateIndex`` compares
    with a tolerance.

    Args:
        atoms: The structure; positions and cell in Å.

    Returns:
        32 hexadecimal digits, the same on every machine. Of a neutral singlet without initial
        magnetic moments, those of ``hash_geometry``.
    """
    return _hash(atoms, encode_state(atoms.info, atoms.arrays))


def hash_geometry(atoms: Atoms) -> str:
    """Do the same without the electronic state."""
    return _hash(atoms, b"")


def _hash(atoms: Atoms, state: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(_species_key(atoms) + state)
    # Adding zero turns -0.0 into 0.0.
    rounded = np.round(_coordinates(atoms) / TOLERANCE) + 0.0
    digest.update(rounded.astype("<f8").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Fingerprint:
    """What tells whether two structures are the same, without the structures.

    Attributes:
        species: Hash of the elements in their order, of the periodic directions and of the
            electronic state, 16 bytes.
        n_atoms: Number of atoms.
        projections: (8,) float64, Å: fixed random projections of cell and positions.
        coordinates: (count_coordinates(n_atoms),) float64, Å: cell and positions.
    """

    species: bytes
    n_atoms: int
    projections: Float64[np.ndarray, " 8"]
    coordinates: Float64[np.ndarray, " c"]

    def equals(self, other: Fingerprint) -> bool:
        """Return whether two fingerprints are those of equal structures."""
        return self.species == other.species and self.n_atoms == other.n_atoms and self._near(other)

    def _near(self, other: Fingerprint) -> bool:
        if len(self.coordinates):
            gap = np.abs(self.coordinates - other.coordinates)
            return bool(gap.max() <= TOLERANCE)
        gap = np.abs(self.projections - other.projections)
        return bool((gap <= _tolerance(self.n_atoms)).all())


def count_coordinates(n_atoms: int) -> int:
    """Return how many numbers a fingerprint keeps of cell and positions."""
    n_coordinates = _N_CELL + 3 * n_atoms
    return n_coordinates if n_coordinates <= MOST_COORDINATES else 0


def make_fingerprint(atoms: Atoms) -> Fingerprint:
    """Return a structure's fingerprint.

    Args:
        atoms: The structure, with finite positions and cell in Å.
    """
    return fingerprint_arrays(
        atoms.numbers,
        atoms.positions,
        atoms.cell.array,
        atoms.pbc.tolist(),
        encode_state(atoms.info, atoms.arrays),
    )


def fingerprint_arrays(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray | None,
    pbc: Sequence[bool],
    state: bytes = b"",
) -> Fingerprint:
    """Return the fingerprint of a structure that is not an ``Atoms``.

    Args:
        numbers: (n,) atomic numbers.
        positions: (n, 3) Å, finite.
        cell: (3, 3) Å, finite; None is a cell of zeros.
        pbc: Three periodic directions.
        state: Its electronic state, see ``encode_state``.
    """
    weights = _weights(_N_CELL + positions.size)
    projections = positions.ravel() @ weights[_N_CELL:]
    if cell is not None:
        projections += cell.ravel() @ weights[:_N_CELL]
    content = bytes(pbc) + numbers.astype("<i4").tobytes() + state
    coordinates = np.zeros(count_coordinates(len(numbers)))
    if len(coordinates):
        coordinates[_N_CELL:] = positions.ravel()
        if cell is not None:
            coordinates[:_N_CELL] = cell.ravel()
    species = hashlib.blake2b(content, digest_size=16).digest()
    return Fingerprint(species, len(numbers), projections, coordinates)


_Entry = tuple[float, float, Fingerprint, int]


class DuplicateIndex:
    """The structures seen so far, for finding repeats.

    Two structures are duplicates when they have the same elements in the same order, the
    same periodic directions, the same electronic state (``encode_state``), and cells and
    positions of which no component differs by more than 1e-6 Å. Moved, rotated or re-ordered
    copies are not: the kernel sees to those.

    Rounding coordinates to a grid would miss most copies that went through a text file,
    because in 3N coordinates one nearly always lies next to a grid boundary. So each
    structure is kept as eight fixed random projections of its coordinates, which
    differ between copies by at most 1e-6 Å times the projection's 1-norm. Up to 21 atoms the
    coordinates decide, which are kept as well. Of larger structures the projections do, and
    take for copies also what differs by a few 1e-6 Å (some 1e-5 Å for hundreds of atoms);
    memory is about 100 bytes each whatever their size.
    """

    def __init__(self) -> None:
        self._bins: dict[tuple[bytes, int, int], list[_Entry]] = {}
        self._n_seen = 0

    def __len__(self) -> int:
        return self._n_seen

    def find(self, structure: Atoms | Fingerprint) -> int | None:
        """Return the number given to an equal structure by ``add``, or None.

        Args:
            structure: The structure, with finite positions and cell in Å, or its fingerprint.
                Of several that equal it one of the first that were added is meant.
        """
        known = _as_fingerprint(structure)
        first, second = _find_place(known)
        found: list[int] = []
        for i, j in itertools.product(_near_bins(first), _near_bins(second)):
            equal = (
                number
                for x, y, other, number in self._bins.get((known.species, i, j), ())
                if abs(x - first) <= _REACH and abs(y - second) <= _REACH and known.equals(other)
            )
            found += itertools.islice(equal, 1)
        return min(found, default=None)

    def add(self, structure: Atoms | Fingerprint, number: int) -> None:
        """Remember a structure under a number of the caller's choice.

        Args:
            structure: The structure, with finite positions and cell in Å, or its fingerprint.
            number: What ``find`` returns for its copies.
        """
        known = _as_fingerprint(structure)
        first, second = _find_place(known)
        home = (known.species, math.floor(first), math.floor(second))
        self._bins.setdefault(home, []).append((first, second, known, number))
        self._n_seen += 1


def _find_place(known: Fingerprint) -> tuple[float, float]:
    """Return two projections, in widths of a bin."""
    first, second = _bin_scales(known.n_atoms)
    projections = known.projections
    return float(projections[0]) * first, float(projections[1]) * second


def _near_bins(place: float) -> set[int]:
    """Return the bins that copies may lie in: the own one, and one next to which it lies."""
    return {math.floor(place - _REACH), math.floor(place), math.floor(place + _REACH)}


@lru_cache(maxsize=256)
def _bin_scales(n_atoms: int) -> tuple[float, float]:
    """Return bins in an Å of each projection that is binned."""
    first, second = (_REACH / _tolerance(n_atoms)[:2]).tolist()
    return first, second


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
