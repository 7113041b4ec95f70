"""The Jacobians of a batch's energies and forces by torch's automatic differentiation.

The forces are differentiated once with their graph kept, and each contraction vᵀJ_F, one row for
every structure of the batch, is one further backward pass through that graph (double backward).
Nothing of size 3N × p is formed unless 3N passes are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.potentials.base import Projection
from labelwise.potentials.graphs import Batch
from labelwise.potentials.passes import note_backward
from labelwise.potentials.torch_potential import TorchPotential, differentiable


class TorchLinearisation:
    """See ``Linearisation``.

    It keeps the graph of a forward and a backward pass: let go of it before the next batch. A
    block that is an embedding table is exact for a whole batch at once; the other blocks are
    taken one structure at a time.
    """

    def __init__(
        self,
        potential: TorchPotential,
        batch: Batch,
        *,
        parameters: str = "embedding",
        project: Projection | None = None,
    ) -> None:
        """Evaluate energies and forces: one forward and one backward pass.

        Args:
            potential: The model.
            batch: n structures.
            parameters: A block of weights, p in number.
            project: Maps rows (m, p) to rows (m, k), for instance a sketch; by default rows
                come as they are.

        Raises:
            ArgumentError: unknown block.
        """
        potential.check_block(parameters)
        self.batch = batch
        self._project = project
        self._parts: list[_Part]
        embedding = potential.node_embedding(batch) if parameters == "embedding" else None
        if embedding is not None:
            self._parts = [_embedding_part(potential, batch, embedding.requires_grad_())]
        else:
            weights = potential.block_weights(parameters)
            self._parts = [_block_part(potential, single, weights) for single in batch.split()]
        self.energies: Tensor = torch.cat([part.energies.detach() for part in self._parts])
        self.forces: Tensor = -torch.cat([part.gradient.detach() for part in self._parts])

    def energy_rows(self) -> Float[Tensor, "n k"]:
        """See ``Linearisation.energy_rows``."""
        return self._collect([part.energies.sum() for part in self._parts])

    def force_rows(self, directions: Float[Tensor, "N 3"]) -> Float[Tensor, "n k"]:
        """See ``Linearisation.force_rows``."""
        if directions.shape != self.forces.shape:
            raise ArgumentError(
                f"directions are {tuple(directions.shape)}; the batch needs "
                f"{tuple(self.forces.shape)}, one vector an atom"
            )
        pieces = torch.split(directions, [len(part.gradient) for part in self._parts])
        contracted = [
            -(part.gradient * piece).sum() for part, piece in zip(self._parts, pieces, strict=True)
        ]
        return self._collect(contracted)

    def _collect(self, scalars: Sequence[Tensor]) -> Float[Tensor, "n k"]:
        rows = [part.rows(scalar) for part, scalar in zip(self._parts, scalars, strict=True)]
        if self._project is not None:
            rows = [self._project(part) for part in rows]
        return torch.cat(rows)


class _Part:
    """One evaluation: energies, their gradient, and what its derivatives are taken for."""

    def __init__(
        self,
        energies: Float[Tensor, " n"],
        gradient: Float[Tensor, "N 3"],
        inputs: Sequence[Tensor],
        to_rows: Callable[[Sequence[Tensor]], Float[Tensor, "n p"]],
    ) -> None:
        self.energies, self.gradient = energies, gradient
        self._inputs, self._to_rows = inputs, to_rows

    def rows(self, scalar: Tensor) -> Float[Tensor, "n p"]:
        """Differentiate a sum over structures; without edges there is nothing to differentiate."""
        cotangents = tuple(torch.zeros_like(each) for each in self._inputs)
        if scalar.requires_grad:
            note_backward(len(self.energies))
            with differentiable(self._inputs):
                cotangents = torch.autograd.grad(
                    scalar,
                    self._inputs,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
        return self._to_rows(cotangents).detach()


def _embedding_part(potential: TorchPotential, batch: Batch, embedding: Tensor) -> _Part:
    def to_rows(cotangents: Sequence[Tensor]) -> Tensor:
        return potential.embedding_pullback(batch, cotangents[0])

    energies, gradient = _differentiate(potential, batch, embedding)
    return _Part(energies, gradient, [embedding], to_rows)


def _block_part(potential: TorchPotential, single: Batch, weights: Sequence[Tensor]) -> _Part:
    with differentiable(weights):
        energies, gradient = _differentiate(potential, single, None)

    def to_rows(cotangents: Sequence[Tensor]) -> Tensor:
        return torch.cat([each.reshape(-1) for each in cotangents])[None]

    return _Part(energies, gradient, weights, to_rows)


def _differentiate(
    potential: TorchPotential, batch: Batch, embedding: Tensor | None
) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"]]:
    """Return energies and their gradient in the positions, with the graphs of both."""
    with torch.enable_grad():
        positions = batch.positions.detach().clone().requires_grad_()
        energies = potential.energies(batch, positions=positions, embedding=embedding)
        if not energies.requires_grad:
            return energies, torch.zeros_like(positions)
        note_backward(batch.n_structures)
        (gradient,) = torch.autograd.grad(
            energies.sum(), positions, create_graph=True, allow_unused=True, materialize_grads=True
        )
    return energies, gradient
