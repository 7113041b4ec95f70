"""Energies and forces that can be differentiated by the weights, by the fastest way there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from labelwise.potentials import Batch, Graph
from labelwise.potentials.batching import DEFAULT_BATCH_ATOMS
from labelwise.potentials.mace.potential import MacePotential
from labelwise.potentials.mace.training.compiled import CompiledMace
from labelwise.potentials.mace.training.lean_mace import LeanMace, supports


@runtime_checkable
class TrainingNetwork(Protocol):
    """Interaction energies and forces as functions of the weights."""

    def prepare(self, graphs: Sequence[Graph]) -> Sequence[Any]:
        """Do what has to be done once per structure."""

    def collate(self, prepared: Sequence[Any]) -> Any:
        """Join prepared structures, at least one, into a batch."""

    def energies_and_forces(
        self, batch: Any, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"]]:
        """Return energies (n,) in eV and forces (N, 3) in eV/Å.

        Args:
            batch: What ``collate`` returned.
            training: Whether the results are to be differentiated by the weights.
        """


def training_network(potential: MacePotential, *, compiled: bool = False) -> TrainingNetwork:
    """Return the lean evaluation of a model, or the module itself where that does not reach.

    Args:
        potential: The model.
        compiled: Whether to compile the lean evaluation, see ``Recipe.compiled``.

    Raises:
        PotentialError: it is to be compiled and cannot be.
    """
    if compiled:
        return CompiledMace(potential)
    return LeanMace(potential) if supports(potential) else PlainMace(potential)


class PlainMace:
    """Any MACE potential, through its module, whose reference energies must be zero."""

    def __init__(self, potential: MacePotential) -> None:
        """Wrap a potential, sharing its weights."""
        self._potential = potential

    def prepare(self, graphs: Sequence[Graph]) -> Sequence[Graph]:
        """Return the graphs: there is nothing to be done."""
        return graphs

    def collate(self, prepared: Sequence[Graph]) -> Batch:
        """Join graphs into a batch."""
        return self._potential.collate(prepared)

    def energies_and_forces(
        self, batch: Batch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"]]:
        """See ``TrainingNetwork.energies_and_forces``."""
        positions = batch.positions.detach().requires_grad_()
        energies = self._potential.energies(batch, positions=positions)
        (gradient,) = torch.autograd.grad(
            energies.sum(),
            positions,
            create_graph=training,
            allow_unused=True,
            materialize_grads=True,
        )
        return energies, -gradient


class PreparedSet:
    """Structures, prepared once, as batches for a network."""

    def __init__(self, network: TrainingNetwork, graphs: Sequence[Graph]) -> None:
        """Prepare structures."""
        self._network = network
        self._counts = [graph.n_atoms for graph in graphs]
        self._prepared = network.prepare(graphs)
        self._singles: dict[int, Any] = {}
        self._joined: dict[int, Any] = {}
        self._is_kept = self._prepared is not graphs

    def batch(self, idx: Sequence[int]) -> Any:
        """Join some of the structures; single ones are kept for the next epoch."""
        if len(idx) > 1:
            return self._network.collate([self._prepared[i] for i in idx])
        if idx[0] not in self._singles:
            self._singles[idx[0]] = self._network.collate([self._prepared[idx[0]]])
        return self._singles[idx[0]]

    def predict(self) -> tuple[Float64[np.ndarray, " n"], tuple[Float64[np.ndarray, "_ 3"], ...]]:
        """Predict all structures: energies (n,) in eV, forces (n_atoms_i, 3) each in eV/Å."""
        energies: list[np.ndarray] = [np.zeros(0)]
        forces: list[np.ndarray] = []
        for idx in self._groups():
            energy, force = self._network.energies_and_forces(self._group(idx), training=False)
            energies.append(energy.detach().cpu().double().numpy())
            joined = force.detach().cpu().double().numpy()
            forces.extend(np.split(joined, np.cumsum([self._counts[i] for i in idx])[:-1]))
        return np.concatenate(energies), tuple(forces)

    def _group(self, idx: list[int]) -> Any:
        """Join a group, and keep it for the next validation where structures are kept too."""
        if not self._is_kept:
            return self._network.collate([self._prepared[i] for i in idx])
        if idx[0] not in self._joined:
            self._joined[idx[0]] = self._network.collate([self._prepared[i] for i in idx])
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
