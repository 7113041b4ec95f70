"""Batches as arrays of few sizes, so that XLA compiles a function a few times and not for each.

What fills them up is one further structure of atoms without an element. Its edges have vectors
that are longer than the cutoff: their derivatives of any order are zeros, not 0/0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32
from numpy.typing import NDArray

from labelwise.potentials.graphs import Batch

_LEAST_ATOMS, _LEAST_EDGES = 32, 256
_STEPS_ATOMS, _STEPS_EDGES = 2, 4
#: Structures side by side at most, and atoms of all of them, unless it is one.
_MOST_TOGETHER, _MOST_ATOMS = 8, 512


class PaddedBatch(NamedTuple):
    """n structures and padding; a tree of arrays, each of which may have an axis before all others.

    Attributes:
        positions: (N, 3), Å.
        numbers: (N,), atomic numbers; 0 for padding.
        senders: (M,), ascending.
        receivers: (M,).
        unit_shifts: (M, 3), see ``Graph``.
        cells: (S, 3, 3), Å.
        charges: (S,), e.
        spins: (S,), multiplicities.
        atom_counts: (S,); structures, the padding, zeros.
        edge_counts: (S,).
    """

    positions: Float[np.ndarray, "*b N 3"]
    numbers: Int32[np.ndarray, "*b N"]
    senders: Int32[np.ndarray, "*b M"]
    receivers: Int32[np.ndarray, "*b M"]
    unit_shifts: Float[np.ndarray, "*b M 3"]
    cells: Float[np.ndarray, "*b S 3 3"]
    charges: Int32[np.ndarray, "*b S"]
    spins: Int32[np.ndarray, "*b S"]
    atom_counts: Int32[np.ndarray, "*b S"]
    edge_counts: Int32[np.ndarray, "*b S"]


class Room(NamedTuple):
    """How large a batch may be that fits arrays of one size.

    Attributes:
        n_atoms: The most atoms.
        n_edges: The most edges.
    """

    n_atoms: int
    n_edges: int


def find_room(n_atoms: int, n_edges: int) -> Room:
    """Return the room that is kept for a batch: little more than it takes, of few sizes."""
    return Room(
        _round_up(n_atoms, _LEAST_ATOMS, _STEPS_ATOMS),
        _round_up(n_edges, _LEAST_EDGES, _STEPS_EDGES),
    )


def _round_up(count: int, least: int, steps: int) -> int:
    """Return the next of so many sizes between a power of two and the next one."""
    if count <= least:
        return least
    step = max(1, (1 << ((count - 1).bit_length() - 1)) // steps)
    return -(-count // step) * step


class Group(NamedTuple):
    """Structures of a batch that are evaluated side by side.

    Attributes:
        places: Which of the batch.
        room: What holds any of them.
    """

    places: tuple[int, ...]
    room: Room

    @property
    def size(self) -> int:
        """How many structures of this room lie side by side, more than places if these are few."""
        return max(1, min(_MOST_TOGETHER, _MOST_ATOMS // self.room.n_atoms))


def group(batch: Batch) -> Iterator[Group]:
    """Share structures out to groups of about one size."""
    rooms: dict[Room, list[int]] = {}
    counts = zip(batch.atom_counts, batch.edge_counts, strict=True)
    for place, (n_atoms, n_edges) in enumerate(counts):
        rooms.setdefault(find_room(n_atoms, n_edges), []).append(place)
    for room, places in rooms.items():
        size = Group((), room).size
        for start in range(0, len(places), size):
            yield Group(tuple(places[start : start + size]), room)


def pad(
    batch: Batch, elements: Sequence[int], cutoff: float, room: Room, n_structures: int
) -> PaddedBatch:
    """Bring a batch to the size of a room.

    Args:
        batch: n structures that fit.
        elements: Atomic numbers, in the potential's order.
        cutoff: Å.
        room: Atoms and edges besides the padding's first atom.
        n_structures: S, at least n + 1.
    """
    n, n_atoms, n_edges = batch.n_structures, batch.n_atoms, batch.n_edges
    more_atoms, more_edges = room.n_atoms + 1 - n_atoms, room.n_edges - n_edges
    sender, receiver = batch.edge_index.cpu().numpy()
    order = np.argsort(sender, kind="stable")
    shifts = _fill(batch.unit_shifts.cpu().numpy()[order], more_edges)
    shifts[n_edges:, 0] = 1.0
    cells = _fill(batch.cells.cpu().numpy(), n_structures - n)
    cells[n] = 2.0 * cutoff * np.eye(3)
    numbers = np.asarray(elements)[batch.species.cpu().numpy()]

    def whole(array: NDArray[np.generic], more: int, filling: int = 0) -> Int32[np.ndarray, " m"]:
        return _fill(array.astype(np.int32), more, filling)

    return PaddedBatch(
        positions=_fill(batch.positions.detach().cpu().numpy(), more_atoms),
        numbers=whole(numbers, more_atoms),
        senders=whole(sender[order], more_edges, n_atoms),
        receivers=whole(receiver[order], more_edges, n_atoms),
        unit_shifts=shifts,
        cells=cells,
        charges=whole(np.rint(batch.charges.cpu().numpy()), n_structures - n),
        spins=whole(np.rint(batch.spins.cpu().numpy()), n_structures - n, 1),
        atom_counts=_counts(batch.atom_counts, more_atoms, n_structures),
        edge_counts=_counts(batch.edge_counts, more_edges, n_structures),
    )


def stack(padded: Sequence[PaddedBatch]) -> PaddedBatch:
    """Put batches of one size along a new first axis."""
    return PaddedBatch(*(np.stack(arrays) for arrays in zip(*padded, strict=True)))


def _counts(counts: Sequence[int], more: int, n_structures: int) -> Int32[np.ndarray, " S"]:
    """Return the counts of structures, of the padding, and zeros."""
    found = np.zeros(n_structures, dtype=np.int32)
    found[: len(counts) + 1] = [*counts, more]
    return found


def _fill(array: NDArray[np.generic], more: int, filling: int = 0) -> NDArray[np.generic]:
    """Append so many rows of one value; a copy."""
    rows = np.full((more, *array.shape[1:]), filling, dtype=array.dtype)
    return np.concatenate([array, rows])
