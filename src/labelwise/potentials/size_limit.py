"""Which structures are too large for the memory there is, before anything is built for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ase import Atoms
from ase.geometry import complete_cell

from labelwise.potentials.base import Potential
from labelwise.potentials.footprint import Footprint, measure_footprint
from labelwise.potentials.graphs import Batch
from labelwise.runtime.memory import available_bytes, format_bytes, resident_bytes
from labelwise.structures.images import estimate_pairs

#: Structures of at most so many atoms are taken as they come: a batch is about as large.
ORDINARY_ATOMS = 512


class SizeLimit:
    """Holds single structures against a number of atoms and against the memory that is free.

    What a structure takes is measured when the first large one comes, or when this is sent
    to another process.

    Args:
        potential: The model that is to take the structures; None where none is run.
        compute: What is done with a batch of the model's; None where nothing is.
        max_atoms: The most atoms a structure may have; None for any number.
        memory_bytes: What the process may occupy in all; None for all that is free.
    """

    def __init__(
        self,
        potential: Potential | None,
        compute: Callable[[Batch], Any] | None,
        *,
        max_atoms: int | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self._potential = potential
        self._compute = compute
        self._max_atoms = max_atoms
        self._memory_bytes = memory_bytes
        self._cutoff = None if potential is None else potential.cutoff
        self._device = torch.device("cpu") if potential is None else potential.device
        self._footprint: Footprint | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Measure, and leave the model behind."""
        self._measure()
        return {**self.__dict__, "_potential": None, "_compute": None}

    def find(self, atoms: Atoms) -> str | None:
        """Return why a structure is too large, in words; None if it is not.

        Args:
            atoms: A structure of finite coordinates and a sound cell.
        """
        n_atoms = len(atoms)
        if self._max_atoms is not None and n_atoms > self._max_atoms:
            return f"{n_atoms:,} atoms, more than the {self._max_atoms:,} allowed"
        if n_atoms <= ORDINARY_ATOMS:
            return None
        needed = self.estimate(atoms)
        if needed is None:
            return None
        room = self._room()
        if needed <= room:
            return None
        return (
            f"{n_atoms:,} atoms need about {format_bytes(needed)} of memory, and "
            f"{format_bytes(room)} are free"
        )

    def estimate(self, atoms: Atoms) -> int | None:
        """Return about how many bytes a structure takes at the peak; None without a model.

        Args:
            atoms: A structure of finite coordinates and a sound cell.
        """
        footprint = self._measure()
        if footprint is None or self._cutoff is None:
            return None
        cell = complete_cell(atoms.cell.array)
        n_edges = estimate_pairs(atoms.positions, cell, atoms.pbc, self._cutoff)
        return footprint.estimate(len(atoms), n_edges)

    def _measure(self) -> Footprint | None:
        if self._footprint is None and self._potential is not None and self._compute is not None:
            self._footprint = measure_footprint(self._potential, self._compute)
        return self._footprint

    def _room(self) -> int:
        """Return the bytes that are free where the model runs."""
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            held = torch.cuda.memory_reserved(self._device)
            return free + held - torch.cuda.memory_allocated(self._device)
        room = available_bytes()
        if self._memory_bytes is not None:
            room = min(room, max(0, self._memory_bytes - resident_bytes()))
        return room
