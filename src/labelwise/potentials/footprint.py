"""What one structure takes in memory while a model evaluates it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Batch

# Peaks of whole processes were 0.92 to 2.05 times what is counted here (kinds of row: ntk-e, ntk-f,
# activation; demo and a 150,800-parameter MACE; 512 to 8,000 atoms): allocators round up, and leave
# gaps that differ from process to process (1.4 to 2.05 for one structure, twelve processes).
_ALLOCATED_PER_COUNTED = 2.2
#: Bytes of a directed edge in ``Graph``, ``Batch`` and the neighbour search.
_GRAPH_BYTES_PER_EDGE = 150
_LATTICE = 4  # atoms along each side of the two crystals that are tried
_DENSE, _SPARSE = 2.3, 1.1  # cutoffs between neighbours: 56 and 6 of them


@dataclass(frozen=True)
class Footprint:
    """Memory that an evaluation needs at its peak, in proportion to atoms and edges.

    Attributes:
        bytes_per_atom: Of tensors with a row for each atom.
        bytes_per_edge: Of tensors with a row for each directed edge, and of the edge itself.
    """

    bytes_per_atom: float
    bytes_per_edge: float

    def estimate(self, n_atoms: int, n_edges: float) -> int:
        """Return the bytes that one structure takes.

        Args:
            n_atoms: Its atoms.
            n_edges: Its directed edges.
        """
        return int(self.bytes_per_atom * n_atoms + self.bytes_per_edge * n_edges)


def note_workspace(n_bytes: int) -> None:
    """Note what a library that is not torch takes while it computes; for its model families.

    Args:
        n_bytes: Of its results and of what it needs on the way.
    """
    for living in _MEASURING.get():
        living.note(n_bytes)


def measure_footprint(potential: Potential, compute: Callable[[Batch], Any]) -> Footprint:
    """Count what is alive at once while two small crystals are evaluated.

    A crystal of 64 atoms with 56 neighbours each and one with 6 each tell what an edge takes and
    what an atom takes; both are in proportion for models of finite cutoff.

    Args:
        potential: The model.
        compute: What is done with a batch.

    Returns:
        The footprint, with what allocators add.
    """
    points = [_count_peak(potential, compute, spacing) for spacing in (_DENSE, _SPARSE)]
    (dense, n_many, n_atoms), (sparse, n_few, _) = points
    per_edge = max(0.0, (dense - sparse) / (n_many - n_few))
    per_atom = max(0.0, (sparse - per_edge * n_few) / n_atoms)
    return Footprint(
        _ALLOCATED_PER_COUNTED * per_atom,
        _ALLOCATED_PER_COUNTED * per_edge + _GRAPH_BYTES_PER_EDGE,
    )


def _count_peak(
    potential: Potential, compute: Callable[[Batch], Any], per_cutoff: float
) -> tuple[int, int, int]:
    """Return the bytes alive at the peak, the edges and the atoms of a simple cubic crystal."""
    spacing = potential.cutoff / per_cutoff
    grid = np.stack(np.meshgrid(*3 * [np.arange(_LATTICE)], indexing="ij"), axis=-1)
    positions = spacing * grid.reshape(-1, 3).astype(np.float64)
    positions += np.random.default_rng(0).uniform(-0.02, 0.02, positions.shape) * spacing
    atoms = Atoms(
        numbers=np.resize(potential.elements, len(positions)),
        positions=positions,
        cell=3 * [_LATTICE * spacing],
        pbc=True,
    )
    batch = potential.collate([potential.prepare(atoms)])
    compute(batch)  # what a model keeps for the next batch is no structure's
    with _LivingTensors() as living:
        token = _MEASURING.set((*_MEASURING.get(), living))
        try:
            compute(batch)
        finally:
            _MEASURING.reset(token)
    return living.peak_bytes, batch.n_edges, batch.n_atoms


class _LivingTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts the bytes of all tensors that are alive; each storage once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self._living_bytes = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **({} if kwargs is None else kwargs))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return result

    def note(self, n_bytes: int) -> None:
        """Note bytes that are taken for a moment besides those of the tensors."""
        self.peak_bytes = max(self.peak_bytes, self._living_bytes + n_bytes)

    def _add(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name in self._storages:
            return
        self._storages.add(name)
        self._living_bytes += size
        self.peak_bytes = max(self.peak_bytes, self._living_bytes)
        weakref.finalize(storage, self._drop, name, size)

    def _drop(self, name: int, size: int) -> None:
        self._storages.discard(name)
        self._living_bytes -= size


_MEASURING: ContextVar[tuple[_LivingTensors, ...]] = ContextVar("labelwise_measuring", default=())
