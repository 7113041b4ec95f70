"""Finding repeats among many structures of which only fingerprints are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from labelwise.structures.identity import (
    TOLERANCE,
    DuplicateIndex,
    Fingerprint,
    count_coordinates,
    largest_tolerance,
)

_NOT_REPEATED = -1


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of n structures, see ``Fingerprint``.

    Attributes:
        species: (n, 16) uint8.
        n_atoms: (n,) int64.
        projections: (n, 8) float64, Å.
        coordinates: (c,) float64, Å, those of all structures behind one another.
    """

    species: UInt8[np.ndarray, "n 16"]
    n_atoms: Int64[np.ndarray, " n"]
    projections: Float64[np.ndarray, "n 8"]
    coordinates: Float64[np.ndarray, " c"]

    def __len__(self) -> int:
        return len(self.species)

    @cached_property
    def _ends(self) -> Int64[np.ndarray, " _"]:
        """Return where the coordinates of each structure begin, and their end."""
        sizes, kinds = np.unique(self.n_atoms, return_inverse=True)
        counts = np.array([count_coordinates(n) for n in sizes.tolist()], dtype=np.int64)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[kinds])])

    def at(self, place: int) -> Fingerprint:
        """Return one of them."""
        return Fingerprint(
            self.species[place].tobytes(),
            int(self.n_atoms[place]),
            self.projections[place],
            self.coordinates[self._ends[place] : self._ends[place + 1]],
        )

    def __getitem__(self, rows: slice | Int64[np.ndarray, " k"]) -> Fingerprints:
        starts, counts = self._ends[:-1][rows], np.diff(self._ends)[rows]
        # Each structure's numbers follow its start; what came before it is taken off.
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return Fingerprints(
            self.species[rows],
            self.n_atoms[rows],
            self.projections[rows],
            self.coordinates[np.repeat(starts, counts) + steps],
        )

    @classmethod
    def of(cls, prints: list[Fingerprint]) -> Fingerprints:
        """Join single fingerprints."""
        return cls(
            np.frombuffer(b"".join(p.species for p in prints), np.uint8).reshape(-1, 16),
            np.array([p.n_atoms for p in prints], dtype=np.int64),
            np.array([p.projections for p in prints], dtype=np.float64).reshape(-1, 8),
            np.concatenate([np.zeros(0), *(p.coordinates for p in prints)]),
        )

    @classmethod
    def join(cls, parts: Sequence[Fingerprints]) -> Fingerprints:
        """Put fingerprints behind one another."""
        several = [cls.of([]), *parts]
        return cls(
            np.concatenate([part.species for part in several]),
            np.concatenate([part.n_atoms for part in several]),
            np.concatenate([part.projections for part in several]),
            np.concatenate([part.coordinates for part in several]),
        )


def find_repeats(
    pool: Fingerprints, train: Fingerprints
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Find the structures that ``Screen.check_pool`` sets aside as repeats, in pool order.

    Most structures have no other near them in their first projection; only the rest are
    compared one by one.

    Args:
        pool: Fingerprints of the pool, n structures.
        train: Those of the labelled structures.

    Returns:
        Place in ``train`` of the labelled structure that each structure equals, (n,), and place
        in ``pool`` of the earlier structure that it equals, (n,); -1 where there is none. Who
        equals a labelled structure is not looked for in the pool, and repeats are not
        remembered, as the screen does.
    """
    of_train = np.full(len(pool), _NOT_REPEATED, dtype=np.int64)
    of_pool = of_train.copy()
    crowded = _crowded(pool, train)
    labelled, offered = DuplicateIndex(), DuplicateIndex()
    for place in np.flatnonzero(crowded[: len(train)]).tolist():
        labelled.add(train.at(place), place)
    for place in np.flatnonzero(crowded[len(train) :]).tolist():
        known = pool.at(place)
        number = labelled.find(known)
        if number is not None:
            of_train[place] = number
            continue
        number = offered.find(known)
        if number is not None:
            of_pool[place] = number
        else:
            offered.add(known, place)
    return of_train, of_pool


def _crowded(pool: Fingerprints, train: Fingerprints) -> Bool[np.ndarray, " t"]:
    """Mark those, labelled ones first, that may equal another: (m + n,) bool."""
    species = np.concatenate([train.species, pool.species]).view("<u8").reshape(-1, 2)
    first = np.concatenate([train.projections[:, 0], pool.projections[:, 0]])
    n_atoms = np.concatenate([train.n_atoms, pool.n_atoms])
    marked = np.zeros(len(first), dtype=bool)
    if len(first) < 2:
        return marked
    reach = max(largest_tolerance(n) for n in np.unique(n_atoms).tolist()) + TOLERANCE
    order = np.lexsort((first, species[:, 1], species[:, 0]))
    same = (species[order[1:]] == species[order[:-1]]).all(axis=1)
    close = same & (np.diff(first[order]) <= reach)
    marked[order[1:][close]] = True
    marked[order[:-1][close]] = True
    return marked
