"""The Jacobians of a batch's energies and forces for models of mlip's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.potentials.base import Prediction, Projection
from labelwise.potentials.graphs import Batch
from labelwise.potentials.passes import note_backward, note_forward

if TYPE_CHECKING:
    from labelwise.potentials.mlip.potential import MlipPotential


class EmbeddingLinearisation:
    """See ``Linearisation``: of the embedding's table, for a whole batch at once.

    It keeps what the forward and the backward pass left; each contraction is one further pass.
    """

    def __init__(
        self,
        potential: MlipPotential,
        batch: Batch,
        prediction: Prediction,
        pull: Any,
        project: Projection | None,
    ) -> None:
        """Take what ``Evaluator.embedding_linearise`` returned."""
        self.batch = batch
        self.energies, forces, _ = prediction
        self.forces: Tensor = torch.zeros(0, 3) if forces is None else forces
        self._potential, self._pull, self._project = potential, pull, project

    def energy_rows(self) -> Float[Tensor, "n k"]:
        """See ``Linearisation.energy_rows``."""
        return self._rows(1.0, torch.zeros_like(self.forces))

    def force_rows(self, directions: Float[Tensor, "N 3"]) -> Float[Tensor, "n k"]:
        """See ``Linearisation.force_rows``."""
        check_directions(directions, self.batch)
        return self._rows(0.0, -directions)

    def _rows(self, energy: float, slope: Float[Tensor, "N 3"]) -> Float[Tensor, "n k"]:
        note_backward(self.batch.n_structures)
        cotangent = self._potential.pull_back(self._pull, energy, slope)
        rows = self._potential.sum_by_element(self.batch, cotangent)
        return rows if self._project is None else self._project(rows)


class BlockLinearisation:
    """See ``Linearisation``: of any block, each contraction computed from the beginning."""

    def __init__(
        self,
        potential: MlipPotential,
        batch: Batch,
        parameters: str,
        project: Projection | None,
    ) -> None:
        """Evaluate energies and forces."""
        self.batch = batch
        self.energies, forces, _ = potential.predict(batch)
        self.forces: Tensor = torch.zeros(0, 3) if forces is None else forces
        self._potential, self._parameters, self._project = potential, parameters, project

    def energy_rows(self) -> Float[Tensor, "n k"]:
        """See ``Linearisation.energy_rows``."""
        return self._potential.energy_tangent(
            self.batch, parameters=self._parameters, project=self._project
        )

    def force_rows(self, directions: Float[Tensor, "N 3"]) -> Float[Tensor, "n k"]:
        """See ``Linearisation.force_rows``."""
        check_directions(directions, self.batch)
        note_forward(self.batch.n_structures)
        note_backward(2 * self.batch.n_structures)
        return self._potential.block_rows(self.batch, self._parameters, self._project, directions)


def check_directions(directions: Float[Tensor, "N 3"], batch: Batch) -> None:
    """Raise ``ArgumentError`` unless there is one vector an atom."""
    if directions.shape != batch.positions.shape:
        raise ArgumentError(
            f"directions are {tuple(directions.shape)}; the batch needs "
            f"{tuple(batch.positions.shape)}, one vector an atom"
        )
