"""The contract that every potential fulfils; everything downstream knows only this.

Letters: n structures, N atoms and M directed edges in a batch, E elements, p parameters of a block.
Energies are in eV, lengths in Å, forces in eV/Å, stress in eV/Å³. A model written in torch derives
from ``TorchPotential``, which turns energies into all the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import IO, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from ase import Atoms
from ase.data import chemical_symbols
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import PotentialError, check_name
from labelwise.potentials.graphs import Batch, Graph, GraphBuilder, collate

_SYMBOLS_SHOWN = 8

Projection = Callable[[Float[Tensor, "m p"]], Float[Tensor, "m k"]]


class Prediction(NamedTuple):
    """What a potential says about a batch.

    Attributes:
        energies: (n,) floating point, eV, total energies.
        forces: (N, 3) floating point, eV/Å, in the batch's order of atoms; None if not asked for.
        stresses: (n, 3, 3) floating point, eV/Å³, positive under tension; None if not asked for.
    """

    energies: Float[Tensor, " n"]
    forces: Float[Tensor, "N 3"] | None
    stresses: Float[Tensor, "n 3 3"] | None = None


@runtime_checkable
class Linearisation(Protocol):
    """Energies and forces of a batch as linear functions of a block of weights.

    Around the weights as they are, E(θ + δ) ≈ E + J_E δ and F(θ + δ) ≈ F + J_F δ. J_E has one row
    for each structure, J_F three for each atom: the mixed derivatives −∂²E/∂r∂θ.

    Source: the mixed derivatives of arXiv:2605.13788.

    Attributes:
        batch: The n structures.
        energies: (n,) eV, detached.
        forces: (N, 3) eV/Å, detached.
    """

    batch: Batch
    energies: Float[Tensor, " n"]
    forces: Float[Tensor, "N 3"]

    def energy_rows(self) -> Float[Tensor, "n k"]:
        """Return J_E = ∂E/∂θ: (n, p), or (n, k) if projected; eV per unit of weight."""

    def force_rows(self, directions: Float[Tensor, "N 3"]) -> Float[Tensor, "n k"]:
        """Return Σ v_jα ∂F_jα/∂θ over the atoms j of each structure and the axes α.

        Args:
            directions: v, (N, 3), in the type and on the device of the potential. Zero for
                all atoms of a structure gives it a row of zeros.

        Returns:
            (n, p), or (n, k) if projected; eV/Å per unit of weight and of v.

        Raises:
            ArgumentError: directions of another shape.
        """


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
        blocks: Names of the blocks of weights that gradients are taken over: ``embedding``, the
            first that an element meets, ``all``, and others of the family's own.
        activation_size: Length of an activation row.
        graph_builder: Makes graphs; picklable, for use in worker processes.
        parity: Whether mirror images have the same energy, as in nature; a model that knows
            rotations alone gives them others.
        file_suffixes: Endings of files that ``write`` can write, the family's own first.
        training_advice: What to do where Labelwise cannot fine-tune it, for messages.

    Example:
        >>> import labelwise as lw
        >>> from ase.build import molecule
        >>> potential = lw.load_potential("demo")
        >>> batch = potential.collate([potential.graph_builder(molecule("H2O"))])
        >>> potential.predict(batch).forces.shape
        torch.Size([3, 3])
    """

    name: str
    elements: tuple[int, ...]
    cutoff: float
    dtype: torch.dtype
    device: torch.device
    heads: tuple[str, ...]
    head: str
    blocks: tuple[str, ...]
    activation_size: int
    graph_builder: GraphBuilder
    parity: bool = True
    file_suffixes: ClassVar[tuple[str, ...]] = ()
    training_advice: ClassVar[str] = "train it with its own program and load the result"

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
        bytes or the device; it is computed at each call, because fine-tuning changes
        weights in place.
        """

    @abstractmethod
    def tangent_size(self, parameters: str = "embedding") -> int:
        """Return p, the number of parameters in a block.

        Raises:
            ArgumentError: unknown block.
        """

    @abstractmethod
    def predict(self, batch: Batch, *, forces: bool = True, stress: bool = False) -> Prediction:
        """Return total energies and, if asked, forces and stress.

        Args:
            batch: n structures.
            forces: Whether forces are wanted.
            stress: Whether stress is wanted; forces come with it. It means something only for
                structures that are periodic in three directions, and is zero without a cell.

        Returns:
            Energies (n,) in eV, forces (N, 3) in eV/Å and stress (n, 3, 3) in eV/Å³, detached.

        Raises:
            PotentialError: stress is wanted of a family that does not give it here.
        """

    @abstractmethod
    def activations(self, batch: Batch) -> Float[Tensor, "n a"]:
        """Return invariant node features averaged over atoms, layers concatenated.

        Only scalar channels of even parity enter.

        Returns:
            (n, activation_size), dimensionless.
        """

    @abstractmethod
    def energy_tangent(
        self,
        batch: Batch,
        *,
        parameters: str = "embedding",
        project: Projection | None = None,
    ) -> Float[Tensor, "n k"]:
        """Return the gradient of every structure's energy with respect to a block of weights.

        Args:
            batch: n structures.
            parameters: One of ``blocks``.
            project: Maps rows (m, p) to rows (m, k), for instance a sketch; by default rows
                come as they are.

        Returns:
            (n, p), or (n, k) if projected; eV per unit of weight, detached.

        Raises:
            ArgumentError: unknown block.

        Source: *Pretrained Model Representations as Acquisition Signals for Active Learning
        of MLIPs*, equation 5.
        """

    @abstractmethod
    def linearise(
        self,
        batch: Batch,
        *,
        parameters: str = "embedding",
        project: Projection | None = None,
    ) -> Linearisation:
        """Return energies and forces of a batch as linear functions of a block of weights.

        Args:
            batch: n structures.
            parameters: One of ``blocks``.
            project: As in ``energy_tangent``.

        Raises:
            ArgumentError: unknown block.
        """

    @abstractmethod
    def with_random_weights(self, seed: int, *, scale: float | None = None) -> Potential:
        """Return a potential of the same architecture with untrained weights drawn from a seed.

        Elements, cutoff, reference energies, type, device and head stay, so that the new
        potential takes the same batches. Torch's global random state is left as it was.

        Args:
            seed: Any integer >= 0; the same seed gives the same weights.
            scale: Factor from the network's output to eV, for instance the root mean square
                force in eV/Å; None keeps the potential's.

        Raises:
            PotentialError: this family cannot be drawn again.
        """

    def write(self, stream: IO[bytes], suffix: str) -> None:  # noqa: ARG002
        """Write the potential to a file.

        Args:
            stream: The file.
            suffix: Which of ``file_suffixes``' formats is wanted.

        Raises:
            PotentialError: this family has no file format.
        """
        raise PotentialError(
            f"{self.name} is a {type(self).__name__}, which Labelwise cannot write to a "
            f"{suffix} file"
        )

    def check_block(self, parameters: str) -> None:
        """Raise ``ArgumentError`` unless the model has a block of weights of this name."""
        check_name("parameters", parameters, self.blocks)

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
