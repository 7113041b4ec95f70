"""Energies, forces and stress that can be differentiated by the weights, and what they aim at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.graphs import Batch, Graph
from labelwise.potentials.stress import differentiate_with_stress


@dataclass(frozen=True)
class WeightedTargets:
    """What the interaction energies and forces of a batch should be, and what each counts.

    Attributes:
        atom_counts: (n,) floating point.
        energies: (n,) floating point, eV, total energies less the reference energies.
        forces: (N, 3) floating point, eV/Å.
        energy_shares: (n,) dimensionless, factor of each energy's term in the loss.
        force_shares: (N,) dimensionless, factor of the three terms of each atom's force.
        delta: (), where Huber's function turns from a parabola into lines.
        stresses: (n, 3, 3) floating point, eV/Å³; None if no structure has one.
        stress_shares: (n,) dimensionless, factor of the nine terms of each structure's stress, 0
            where there is none; None if no structure has one.
    """

    atom_counts: Float[Tensor, " n"]
    energies: Float[Tensor, " n"]
    forces: Float[Tensor, "N 3"]
    energy_shares: Float[Tensor, " n"]
    force_shares: Float[Tensor, " N"]
    delta: Float[Tensor, ""]
    stresses: Float[Tensor, "n 3 3"] | None = None
    stress_shares: Float[Tensor, " n"] | None = None


@runtime_checkable
class TrainingNetwork(Protocol):
    """Interaction energies, forces and stress as functions of the weights."""

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

    def energies_forces_stresses(
        self, batch: Any, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"], Float[Tensor, "n 3 3"]]:
        """Return stress (n, 3, 3) in eV/Å³, too; see ``energies_and_forces``.

        It is symmetric, and zero for a structure without a cell.
        """


@runtime_checkable
class UpdatingNetwork(TrainingNetwork, Protocol):
    """A network that takes loss and gradients in one piece."""

    def loss_and_gradients(
        self, batch: Any, targets: WeightedTargets
    ) -> tuple[Float[Tensor, ""], Sequence[Tensor]]:
        """Return the loss of a batch and its gradient by each of ``trained_weights``.

        Args:
            batch: What ``collate`` returned.
            targets: What energies, forces and, where there are any, stresses should be.
        """


class PlainNetwork:
    """Any potential, through its interaction energies."""

    def __init__(
        self,
        energies: Callable[..., Float[Tensor, " n"]],
        collate: Callable[[Sequence[Graph]], Batch],
    ) -> None:
        """Take a potential's ``interaction_energies`` and ``collate``."""
        self._energies, self._collate = energies, collate

    def prepare(self, graphs: Sequence[Graph]) -> Sequence[Graph]:
        """Return the graphs: there is nothing to be done."""
        return graphs

    def collate(self, prepared: Sequence[Graph]) -> Batch:
        """Join graphs into a batch."""
        return self._collate(prepared)

    def energies_and_forces(
        self, batch: Batch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"]]:
        """See ``TrainingNetwork.energies_and_forces``."""
        positions = batch.positions.detach().requires_grad_()
        energies = self._energies(batch, positions=positions)
        (gradient,) = torch.autograd.grad(
            energies.sum(),
            positions,
            create_graph=training,
            allow_unused=True,
            materialize_grads=True,
        )
        return energies, -gradient

    def energies_forces_stresses(
        self, batch: Batch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"], Float[Tensor, "n 3 3"]]:
        """See ``TrainingNetwork.energies_forces_stresses``."""
        return differentiate_with_stress(self._energies, batch, training=training)
