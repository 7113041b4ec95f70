"""Structures as a training network takes them, prepared once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from labelwise.potentials import Graph
from labelwise.potentials.batching import DEFAULT_BATCH_ATOMS
from labelwise.potentials.training import TrainingNetwork


class PreparedSet:
    """Structures, prepared once, as batches for a network.

    Attributes:
        network: Which takes them.
    """

    def __init__(self, network: TrainingNetwork, graphs: Sequence[Graph]) -> None:
        """Prepare structures."""
        self.network = network
        self._counts = [graph.n_atoms for graph in graphs]
        self._prepared = network.prepare(graphs)
        self._singles: dict[int, Any] = {}
        self._joined: dict[int, Any] = {}
        self._is_kept = self._prepared is not graphs

    def __len__(self) -> int:
        """Structures."""
        return len(self._counts)

    def n_atoms(self, place: int) -> int:
        """Return the atoms of a structure."""
        return self._counts[place]

    def batch(self, idx: Sequence[int]) -> Any:
        """Join some of the structures; single ones are kept for the next epoch."""
        if len(idx) > 1:
            return self.network.collate([self._prepared[i] for i in idx])
        if idx[0] not in self._singles:
            self._singles[idx[0]] = self.network.collate([self._prepared[idx[0]]])
        return self._singles[idx[0]]

    def predict(
        self, *, stress: bool = False
    ) -> tuple[
        Float64[np.ndarray, " n"],
        tuple[Float64[np.ndarray, "_ 3"], ...],
        Float64[np.ndarray, "n 3 3"] | None,
    ]:
        """Predict all structures.

        Args:
            stress: Whether stress is wanted.

        Returns:
            Energies (n,) in eV, forces (n_atoms_i, 3) each in eV/Å, and stress (n, 3, 3) in
            eV/Å³, None if not wanted.
        """
        energies: list[np.ndarray] = [np.zeros(0)]
        forces: list[np.ndarray] = []
        stresses: list[np.ndarray] = [np.zeros((0, 3, 3))]
        for idx in self._groups():
            energy, force, tension = self.evaluate(self._group(idx), training=False, stress=stress)
            if tension is not None:
                stresses.append(tension.detach().cpu().double().numpy())
            energies.append(energy.detach().cpu().double().numpy())
            joined = force.detach().cpu().double().numpy()
            forces.extend(np.split(joined, np.cumsum([self._counts[i] for i in idx])[:-1]))
        joined_stress = np.concatenate(stresses) if stress else None
        return np.concatenate(energies), tuple(forces), joined_stress

    def evaluate(
        self, batch: Any, *, training: bool, stress: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"], Float[Tensor, "n 3 3"] | None]:
        """Evaluate a batch; see ``TrainingNetwork``. Without stress no work is done for it."""
        if stress:
            return self.network.energies_forces_stresses(batch, training=training)
        return (*self.network.energies_and_forces(batch, training=training), None)

    def _group(self, idx: list[int]) -> Any:
        """Join a group, and keep it for the next validation where structures are kept too."""
        if not self._is_kept:
            return self.network.collate([self._prepared[i] for i in idx])
        if idx[0] not in self._joined:
            self._joined[idx[0]] = self.network.collate([self._prepared[i] for i in idx])
        return self._joined[idx[0]]

    def _groups(self) -> list[list[int]]:
        """Fill groups with at most as many atoms as suit a CPU, in order."""
        groups: list[list[int]] = []
        room = 0
        for i, count in enumerate(self._counts):
            if not groups or count > room:
                groups.append([])
                room = DEFAULT_BATCH_ATOMS["cpu"]
            groups[-1].append(i)
            room -= count
        return groups
