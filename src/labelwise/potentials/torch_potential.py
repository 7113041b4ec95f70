"""Potentials whose model is a torch module: from differentiable energies to all the rest.

A family says how energies depend on positions and weights, which weights make up a block, and what
its activations are; predictions, tangents, linearisations, copies and training follow.
"""

from __future__ import annotations

import copy
import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.node import map_arg

from labelwise.errors import PotentialError
from labelwise.potentials.base import Linearisation, Potential, Prediction, Projection
from labelwise.potentials.graphs import Batch, GraphBuilder
from labelwise.potentials.passes import note_backward
from labelwise.potentials.stress import differentiate_with_stress
from labelwise.potentials.training import PlainNetwork, TrainingNetwork

_EVERYTHING = "all"


class TorchPotential(Potential):
    """A torch module behind the contract; ``docs/adding_a_potential.md`` has a complete example.

    Attributes:
        model: The module, its parameters frozen (``requires_grad`` False). Its weights may be
            changed in place; everything here follows.
        block_prefixes: For each block, how the names of its parameters in ``model`` begin. The
            block ``all`` need not be named.
        embedding_scale: Where initial node features are a table by element, by what factor they
            exceed its weights, the one tensor of the block ``embedding``; else None. With it
            tangents of the embedding take one backward pass for a whole batch, without it one
            for each structure, as those of the other blocks do.
    """

    model: torch.nn.Module
    block_prefixes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    embedding_scale: float | None = None

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        name: str,
        elements: Sequence[int],
        cutoff: float,
        activation_size: int,
        heads: tuple[str, ...] = ("Default",),
        head: str | None = None,
        charge_range: tuple[float, float] | None = None,
        spin_range: tuple[float, float] | None = None,
    ) -> None:
        """Wrap a module, which is set to evaluation and frozen.

        Args:
            model: On its device and in its type.
            name: What to call it.
            elements: (E,) atomic numbers, in the model's order.
            cutoff: Radius of the neighbour list, Å.
            activation_size: Length of an activation row.
            heads: Names of its levels of theory.
            head: The one to use; may be None if there is one, or one called ``default``.
            charge_range: Total charges that it knows, inclusive; None if it ignores them.
            spin_range: The same for the multiplicity.

        Raises:
            PotentialError: unknown head, a head is needed, or a model without weights.
        """
        self.model = model.eval().requires_grad_(False)
        self.name, self.elements, self.cutoff = name, tuple(elements), float(cutoff)
        weight = next(model.parameters(), None)
        if weight is None:
            raise PotentialError(f"{name} has no weights, of which gradients could be taken")
        self.dtype, self.device = weight.dtype, weight.device
        self.heads = tuple(heads)
        self.head = choose_head(self.heads, head)
        self.blocks = (*(b for b in self.block_prefixes if b != _EVERYTHING), _EVERYTHING)
        self.activation_size = activation_size
        self.graph_builder = GraphBuilder(
            elements=self.elements,
            cutoff=self.cutoff,
            charge_range=charge_range,
            spin_range=spin_range,
        )
        self._references = torch.zeros(len(self.elements), dtype=torch.float64)
        self._adds_references = True

    @abstractmethod
    def interaction_energies(
        self,
        batch: Batch,
        *,
        positions: Float[Tensor, "N 3"] | None = None,
        embedding: Float[Tensor, "N C"] | None = None,
    ) -> Float[Tensor, " n"]:
        """Return energies without atomic reference energies, as a differentiable function.

        Gradients flow into the weights, if they require them, and into whichever of
        ``positions`` and ``embedding`` is given and requires them, twice if need be. What is
        not given is a constant, and costs no backward work. Where positions are given, gradients
        also flow into the batch's ``shifts`` and ``cells``, for the stress. Call ``note_forward``.

        Args:
            batch: n structures.
            positions: (N, 3), Å, in place of the batch's.
            embedding: (N, C), in place of the initial node features; given only to a model that
                has an ``embedding_scale``.

        Returns:
            (n,) eV.
        """

    def energies(
        self,
        batch: Batch,
        *,
        positions: Float[Tensor, "N 3"] | None = None,
        embedding: Float[Tensor, "N C"] | None = None,
    ) -> Float[Tensor, " n"]:
        """Return total energies; see ``interaction_energies``, to which references are added."""
        energies = self.interaction_energies(batch, positions=positions, embedding=embedding)
        if not self._adds_references:
            return energies
        table = self.reference_row().detach().to(device=batch.species.device, dtype=torch.float64)
        total = table.new_zeros(batch.n_structures)
        total.index_add_(0, batch.structure_idx, table[batch.species])
        return energies + total.to(energies.dtype)

    @property
    def content_hash(self) -> str:
        """See ``Potential.content_hash``; numbers and words held by modules are hyperparameters."""
        settings: list[Any] = [
            (type(self).__name__, self.elements, self.cutoff, self.heads, self.head)
        ]
        for name, module in self.model.named_modules():
            if isinstance(module, GraphModule):  # its code names its variables anew when it is sent
                settings.append((name, _list_operations(module)))
                continue
            held = {k: v for k, v in vars(module).items() if isinstance(v, int | float | str)}
            held.pop("training", None)
            settings.append((name, type(module).__name__, sorted(held.items())))
        digest = hashlib.sha256(repr(settings).encode())
        tensors = {"reference energies": self.reference_row(), **self.model.state_dict()}
        for key, value in sorted(tensors.items()):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().tobytes())
        return digest.hexdigest()

    # Predictions and tangents.

    def predict(self, batch: Batch, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See ``Potential.predict``."""
        if stress:
            note_backward(batch.n_structures)
            found = differentiate_with_stress(self.energies, batch, training=False)
            return Prediction(*(each.detach() for each in found))
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

    def block_weights(self, parameters: str) -> list[Tensor]:
        """Return the weights of a block, leaves of the graph, in an order fixed by their names.

        Raises:
            ArgumentError: unknown block.
        """
        self.check_block(parameters)
        prefixes = ("",) if parameters == _EVERYTHING else self.block_prefixes[parameters]
        absent = self.absent_weights()
        return [
            weight
            for name, weight in sorted(self.model.named_parameters())
            if name.startswith(prefixes) and name not in absent
        ]

    def absent_weights(self) -> Set[str]:
        """Name parameters on which no energy can depend; they are in no block."""
        return set()

    def tangent_size(self, parameters: str = "embedding") -> int:
        """See ``Potential.tangent_size``."""
        return sum(weight.numel() for weight in self.block_weights(parameters))

    def energy_tangent(
        self,
        batch: Batch,
        *,
        parameters: str = "embedding",
        project: Projection | None = None,
    ) -> Float[Tensor, "n k"]:
        """See ``Potential.energy_tangent``.

        An embedding table takes one forward and one backward pass for the whole batch; the other
        blocks are taken one structure at a time.
        """
        self.check_block(parameters)
        embedding = self.node_embedding(batch) if parameters == "embedding" else None
        if embedding is None:
            singles = [self.block_gradient(single, parameters) for single in batch.split()]
            return torch.cat([each if project is None else project(each) for each in singles])
        energies = self.energies(batch, embedding=embedding.requires_grad_())
        note_backward(batch.n_structures)
        (cotangent,) = torch.autograd.grad(
            energies.sum(), embedding, allow_unused=True, materialize_grads=True
        )
        rows = self.embedding_pullback(batch, cotangent)
        return rows if project is None else project(rows)

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

    def linearise(
        self,
        batch: Batch,
        *,
        parameters: str = "embedding",
        project: Projection | None = None,
    ) -> Linearisation:
        """See ``Potential.linearise``; it keeps the graph of a forward and a backward pass."""
        from labelwise.potentials.linearisation import TorchLinearisation  # which imports this

        return TorchLinearisation(self, batch, parameters=parameters, project=project)

    def node_embedding(self, batch: Batch) -> Float[Tensor, "N C"] | None:
        """Return the initial node features (N, C), detached; None without a table of them."""
        if self.embedding_scale is None:
            return None
        (weight,) = self.block_weights("embedding")
        table = weight.detach().view(len(self.elements), -1) * self.embedding_scale
        return table[batch.species]

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

        Raises:
            PotentialError: there is no table of initial node features.
        """
        if self.embedding_scale is None:
            raise PotentialError(f"{self.name} has no table of initial node features")
        n_elements = len(self.elements)
        target = batch.structure_idx * n_elements + batch.species
        rows = cotangent.new_zeros(batch.n_structures * n_elements, cotangent.shape[1])
        rows = rows.index_add(0, target, cotangent)
        return rows.view(batch.n_structures, -1) * self.embedding_scale

    # Training.

    def with_random_weights(self, seed: int, *, scale: float | None = None) -> TorchPotential:
        """See ``Potential.with_random_weights``."""
        raise PotentialError(
            f"{self.name} is a {type(self).__name__}, whose architecture cannot be built with "
            f"new weights (seed {seed}, scale {scale}); start from its pretrained weights"
        )

    def copy(self) -> TorchPotential:
        """Return a potential with weights of its own, equal to these."""
        return copy.deepcopy(self)

    def with_head(self, head: str) -> TorchPotential:
        """Return the potential with another head in use, sharing every weight.

        Raises:
            PotentialError: an unknown head, or a family whose heads are not trained side by side.
        """
        raise PotentialError(
            f"{self.name} is a {type(self).__name__}; only MACE models are fitted with a head of "
            f"its own ({head}) for what is replayed: leave replay_head out"
        )

    def split_head(self, name: str) -> TorchPotential:
        """Return a potential with weights of its own and one head more; errors as ``with_head``.

        Args:
            name: What the head in use is called from now on, of no other head. The new one is
                its equal, has its former name, and is in use.
        """
        return self.with_head(name)

    def reference_row(self) -> Float[Tensor, " E"]:
        """Return the atomic reference energies of the head in use, eV: the tensor itself."""
        return self._references

    @property
    def reference_energies(self) -> Float64[np.ndarray, " E"]:
        """The atomic reference energies of the head in use, (E,) float64, eV; a copy."""
        return self.reference_row().detach().cpu().double().numpy().copy()

    @torch.no_grad()
    def set_reference_energies(self, energies: Float64[np.ndarray, " E"]) -> None:
        """Set the atomic reference energies of the head in use, in place.

        Args:
            energies: (E,) float64, eV.
        """
        row = self.reference_row()
        row.copy_(torch.from_numpy(energies).to(row))

    def without_references(self) -> TorchPotential:
        """Return the potential without its reference energies, sharing every weight.

        Total energies are thousands of eV, of which single precision keeps 1e-4 eV; the
        interaction energy is small and exact to 1e-6 eV. The reference energies are added in
        double precision instead.
        """
        view = copy.copy(self)
        view._adds_references = False
        return view

    def trained_weights(self) -> list[Tensor]:
        """List every weight that fine-tuning changes; only ``absent_weights`` are left out."""
        absent = self.absent_weights()
        return [p for name, p in self.model.named_parameters() if name not in absent]

    def matrix_shapes(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """Return the matrices that parameters of ``model`` are, by name: rows and columns of each.

        A parameter that e3nn keeps flat holds several, one after the other; what has more than
        two dimensions is the matrix of all but the last of them by the last. Vectors and numbers
        are left out. A family whose parameters hold matrices in another way overrides this.
        """
        shapes: dict[str, tuple[tuple[int, int], ...]] = {
            name: ((weight[..., 0].numel(), weight.shape[-1]),)
            for name, weight in self.model.named_parameters()
            if weight.dim() >= 2
        }
        for name, module in self.model.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, torch.nn.Parameter) and weight.dim() == 1:
                held = _list_path_matrices(getattr(module, "instructions", ()))
                if held and sum(rows * columns for rows, columns in held) == weight.numel():
                    shapes[f"{name}.weight" if name else "weight"] = held
        return shapes

    def training_network(self, *, compiled: bool = False) -> TrainingNetwork:
        """Return energies and forces that can be differentiated by the weights.

        Args:
            compiled: Whether updates are to be compiled, see ``Recipe.compiled``.

        Raises:
            PotentialError: they are to be compiled and cannot be.
        """
        if compiled:
            raise PotentialError(
                f"compiled is True, but the updates of a {type(self).__name__} cannot be "
                "compiled; set compiled to False"
            )
        return PlainNetwork(self.interaction_energies, self.collate)


def _list_operations(module: GraphModule) -> list[str]:
    """Return what generated code does, each result by its number."""
    numbers = {node: i for i, node in enumerate(module.graph.nodes)}
    done = []
    for node in numbers:
        inputs = map_arg((node.args, node.kwargs), lambda each: f"%{numbers[each]}")
        done.append(f"{node.op} {getattr(node.target, '__name__', node.target)} {inputs}")
    return done


def choose_head(heads: tuple[str, ...], head: str | None) -> str:
    """Return the head to use.

    Args:
        heads: The model's heads.
        head: The one asked for, or None.

    Raises:
        PotentialError: unknown head, or several and none of them is called ``default``.
    """
    if head is not None:
        if head not in heads:
            raise PotentialError(f"head is {head!r}; this model has {', '.join(heads)}")
        return head
    if len(heads) == 1:
        return heads[0]
    default = [each for each in heads if each.lower() == "default"]
    if len(default) != 1:
        raise PotentialError(
            f"this model has the heads {', '.join(heads)}: choose one with head=... or --head"
        )
    return default[0]


def average_over_atoms(atoms: Float[Tensor, "N a"], batch: Batch) -> Float[Tensor, "n a"]:
    """Return the mean of a feature over the atoms of each structure.

    Args:
        atoms: (N, a) features of atoms.
        batch: n structures.
    """
    total = atoms.new_zeros(batch.n_structures, atoms.shape[1])
    total.index_add_(0, batch.structure_idx, atoms)
    counts = torch.tensor(batch.atom_counts, dtype=atoms.dtype, device=atoms.device)
    return total / counts[:, None]


def list_scalars(irreps: Any) -> Tensor:
    """Return the places of the even scalars among equivariant features.

    Args:
        irreps: Of e3nn, d features in all.

    Returns:
        (a,) int64, ascending, each below d.
    """
    places = [
        torch.arange(part.start, part.stop)
        for (_, irrep), part in zip(irreps, irreps.slices(), strict=True)
        if irrep.l == 0 and irrep.p == 1
    ]
    return torch.cat(places)


def _list_path_matrices(instructions: Any) -> tuple[tuple[int, int], ...]:
    """Return rows and columns of the weights of an e3nn layer, path by path."""
    return tuple(
        (math.prod(each.path_shape[:-1]), int(each.path_shape[-1]))
        for each in instructions
        if len(getattr(each, "path_shape", ())) > 1 and getattr(each, "has_weight", True)
    )


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let new floating-point tensors be of a type for the time being."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


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
