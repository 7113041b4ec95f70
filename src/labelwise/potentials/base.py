"""The contract that every potential fulfils; everything downstream knows only this.

Letters: n structures, N atoms and M directed edges in a batch, E elements, C channels of the
initial node features, p parameters of a block. Energies are in eV, lengths in Å, forces in eV/Å.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from ase import Atoms
from ase.data import chemical_symbols
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import PotentialError, check_name
from labelwise.potentials.graphs import Batch, Graph, GraphBuilder, collate
from labelwise.potentials.passes import note_backward
from labelwise.potentials.spec import PARAMETER_BLOCKS as PARAMETER_BLOCKS
from labelwise.potentials.spec import ParameterBlock as ParameterBlock

_SYMBOLS_SHOWN = 8

Projection = Callable[[Float[Tensor, "m p"]], Float[Tensor, "m k"]]


class Prediction(NamedTuple):
    """What a potential says about a batch.

    Attributes:
        energies: (n,) floating point, eV, total energies.
        forces: (N, 3) floating point, eV/Å, in the batch's order of atoms; None if not asked for.
    """

    energies: Float[Tensor, " n"]
    forces: Float[Tensor, "N 3"] | None


class Potential(ABC):
    """A pretrained interatomic potential and the features it gives.

    A subclass sets the attributes and implements the abstract methods for one model family.
    All methods leave their inputs and torch's global settings as they were, and take
    structures without edges (isolated atoms).

    Attributes:
        name: What the user called it: a file's name or a known name.
        elements: (E,) atomic numbers that the model knows, in the model's order.
        cutoff: Radius of the neighbour list, Å.
        dtype: Floating-point type of weights, inputs and results.
        device: Where the model is.
        heads: Names of the model's heads (levels of theory), at least one.
        head: The head in use.
        n_layers: Interaction layers.
        activation_size: Length of an activation row.
        graph_builder: Makes graphs; picklable, for use in worker processes.
    """

    name: str
    elements: tuple[int, ...]
    cutoff: float
    dtype: torch.dtype
    device: torch.device
    heads: tuple[str, ...]
    head: str
    n_layers: int
    activation_size: int
    graph_builder: GraphBuilder

    def __repr__(self) -> str:
        """Say in a line what it is and where."""
        symbols = [chemical_symbols[number] for number in self.elements]
        most = _SYMBOLS_SHOWN
        listed = ", ".join(symbols[:most]) + (", ..." if len(symbols) > most else "")
        head = f", head {self.head!r}" if len(self.heads) > 1 else ""
        precision = str(self.dtype).removeprefix("torch.")
        return (
            f"{type(self).__name__}({self.name!r}, {len(symbols)} elements ({listed}), cutoff "
            f"{self.cutoff:g} Å, {precision} on {self.device}{head})"
        )

    @property
    @abstractmethod
    def content_hash(self) -> str:
        """Hash of weights, hyperparameters, floating-point type and head: 64 hex digits.

        It is the same after saving and loading again and does not depend on the file's
        bytes or the device; it is computed anew at each call, because fine-tuning changes
        weights in place.
        """

    @abstractmethod
    def block_weights(self, parameters: str) -> list[Tensor]:
        """Return the weights of a block, leaves of the graph, in an order fixed by their names.

        Raises:
            ArgumentError: unknown block.
        """

    def tangent_size(self, parameters: str = "embedding") -> int:
        """Return p, the number of parameters in a block.

        Raises:
            ArgumentError: unknown block.
        """
        return sum(weight.numel() for weight in self.block_weights(parameters))

    @abstractmethod
    def energies(
        self,
        batch: Batch,
        *,
        positions: Float[Tensor, "N 3"] | None = None,
        embedding: Float[Tensor, "N C"] | None = None,
    ) -> Float[Tensor, " n"]:
        """Return total energies as a differentiable function.

        Gradients flow into whichever of ``positions`` and ``embedding`` is given and requires
        them, twice if need be: with h = ``node_embedding(batch)`` the mixed derivative
        ∂²E/∂r∂h is a double backward pass, and ``embedding_pullback`` makes parameter
        gradients of it. What is not given is a constant, and costs no backward work.

        Args:
            batch: n structures.
            positions: (N, 3), Å, in place of the batch's.
            embedding: (N, C), in place of the initial node features.

        Returns:
            (n,) eV.
        """

    @abstractmethod
    def node_embedding(self, batch: Batch) -> Float[Tensor, "N C"]:
        """Return the initial node features, the rows of the embedding table: (N, C), detached."""

    @abstractmethod
    def embedding_pullback(
        self, batch: Batch, cotangent: Float[Tensor, "N C"]
    ) -> Float[Tensor, "n EC"]:
        """Turn gradients for the initial node features into gradients for the embedding weights.

        Exact per structure although the batch was differentiated at once: the features of
        an atom are its element's row of the weights, so that a structure's gradient for that
        row is the sum over its atoms of that element.

        Args:
            batch: n structures.
            cotangent: (N, C), ∂(Σ of any function of single structures)/∂h.

        Returns:
            (n, E * C), row i the gradient of structure i's term, elements in order.
        """

    @abstractmethod
    def activations(self, batch: Batch) -> Float[Tensor, "n a"]:
        """Return invariant node features averaged over atoms, layers concatenated.

        Only scalar channels of even parity enter.

        Returns:
            (n, activation_size), dimensionless.
        """

    def predict(self, batch: Batch, *, forces: bool = True) -> Prediction:
        """Return total energies and, if asked, forces.

        Args:
            batch: n structures.
            forces: Whether forces are wanted.

        Returns:
            Energies (n,) in eV and forces (N, 3) in eV/Å, detached.
        """
        if not forces:
            with torch.no_grad():
                return Prediction(self.energies(batch), None)
        positions = batch.positions.detach().requires_grad_()
        energies = self.energies(batch, positions=positions)
        if not energies.requires_grad:
            return Prediction(energies, torch.zeros_like(positions))
        note_backward(batch.n_structures)
        (gradient,) = torch.autograd.grad(
            energies.sum(), positions, allow_unused=True, materialize_grads=True
        )
        return Prediction(energies.detach(), -gradient)

    def energy_tangent(
        self,
        batch: Batch,
        *,
        parameters: str = "embedding",
        project: Projection | None = None,
    ) -> Float[Tensor, "n k"]:
        """Return the gradient of every structure's energy with respect to a parameter block.

        ``embedding`` takes one forward and one backward pass for the whole batch; the other
        blocks are taken one structure at a time.

        Args:
            batch: n structures.
            parameters: ``embedding``, ``readout``, ``products`` or ``all``.
            project: Maps rows (m, p) to rows (m, k), for instance a sketch; by default rows
                come as they are.

        Returns:
            (n, p), or (n, k) if projected; eV per unit of weight, detached.

        Raises:
            ArgumentError: unknown block.

        Source: *Pretrained Model Representations as Acquisition Signals for Active Learning
        of MLIPs*, equation 5.
        """
        check_parameter_block(parameters)
        project = project if project is not None else _unchanged
        if parameters == "embedding":
            return project(self._embedding_tangent(batch))
        rows = [project(self.block_gradient(single, parameters)) for single in batch.split()]
        return torch.cat(rows)

    def _embedding_tangent(self, batch: Batch) -> Float[Tensor, "n p"]:
        embedding = self.node_embedding(batch).requires_grad_()
        energies = self.energies(batch, embedding=embedding)
        note_backward(batch.n_structures)
        (cotangent,) = torch.autograd.grad(energies.sum(), embedding)
        return self.embedding_pullback(batch, cotangent)

    def block_gradient(self, single: Batch, parameters: str) -> Float[Tensor, "1 p"]:
        """Return one structure's energy gradient by plain differentiation.

        Args:
            single: A batch of one structure.
            parameters: A block.

        Returns:
            (1, p) eV per unit of weight, the weights flattened in the order of
            ``block_weights``.

        Raises:
            ArgumentError: unknown block.
        """
        weights = self.block_weights(parameters)
        note_backward(single.n_structures)
        with torch.enable_grad(), differentiable(weights):
            gradients = torch.autograd.grad(
                self.energies(single).sum(), weights, allow_unused=True, materialize_grads=True
            )
        return torch.cat([gradient.reshape(-1) for gradient in gradients])[None]

    def with_random_weights(self, seed: int) -> Potential:
        """Return a potential of the same architecture with untrained weights drawn from a seed.

        Elements, cutoff, reference energies, scale, type, device and head stay, so that the
        new potential takes the same batches. Torch's global random state is left as it was.

        Args:
            seed: Any integer >= 0; the same seed gives the same weights.

        Raises:
            PotentialError: this family cannot be made anew.
        """
        raise PotentialError(
            f"{self.name} is a {type(self).__name__}, of which no random copy can be made "
            f"(seed {seed}); only MACE potentials can"
        )

    def prepare(self, atoms: Atoms) -> Graph:
        """Build the graph of one structure; the input is not modified.

        Raises:
            StructureError: see ``GraphBuilder.__call__``.
        """
        return self.graph_builder(atoms)

    def collate(self, graphs: Sequence[Graph]) -> Batch:
        """Join graphs into one batch in this potential's type and on its device.

        Raises:
            ArgumentError: no graphs.
        """
        return collate(graphs, dtype=self.dtype, device=self.device)


def check_parameter_block(parameters: str) -> None:
    """Raise ``ArgumentError`` unless ``parameters`` names a block."""
    check_name("parameters", parameters, PARAMETER_BLOCKS)


def _unchanged(rows: Float[Tensor, "m p"]) -> Float[Tensor, "m p"]:
    return rows


@contextmanager
def differentiable(weights: Sequence[Tensor]) -> Iterator[None]:
    """Let gradients flow into some weights for the time being."""
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, flag in zip(weights, before, strict=True):
            weight.requires_grad_(flag)
