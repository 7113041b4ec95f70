"""What the optimiser moves, and the weights of the model as functions of it.

A network takes weights and gives gradients by them, and knows no more. What the optimiser moves
are coordinates: the weights themselves, those of some blocks, or factors of low-rank changes. A
``Parametrisation`` writes the weights from the coordinates, in place, and turns gradients by
weights into gradients by coordinates, so that every way of training goes through the same
networks, compiled ones too.

Moving average, best weights and returned weights are those of the model, not of coordinates: the
average of A·B is not the product of the averages of A and B, and what is validated and returned is
a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import ArgumentError, check_name
from labelwise.finetuning.weight_options import WeightOptions
from labelwise.potentials import Potential
from labelwise.potentials.torch_potential import TorchPotential


@dataclass(frozen=True)
class Trained:
    """How much of a model is trained.

    Attributes:
        blocks: The blocks.
        n_weights: Weights that change.
        n_coordinates: Numbers that the optimiser moves.
        n_all: Weights of the model on which an energy can depend.
    """

    blocks: tuple[str, ...]
    n_weights: int
    n_coordinates: int
    n_all: int


class Parametrisation:
    """Weights that are their own coordinates.

    Attributes:
        weights: The tensors of the model that change, in the order of ``trained_weights``.
        places: Of each, its place in ``TorchPotential.trained_weights``.
        groups: Factors of the learning rate, and the coordinates that have them.
    """

    def __init__(
        self, weights: Sequence[Tensor], places: Sequence[int], factors: Sequence[float]
    ) -> None:
        """Take tensors of the model.

        Args:
            weights: They are changed in place.
            places: Of each.
            factors: Of the learning rate of each.
        """
        self.weights, self.places = list(weights), list(places)
        self.groups = _group(factors, [[weight] for weight in self.weights])

    @property
    def coordinates(self) -> list[Tensor]:
        """What the optimiser moves."""
        return [tensor for _, tensors in self.groups for tensor in tensors]

    def pull_back(self) -> None:
        """Turn the gradients that lie with the weights into those of the coordinates."""

    def write(self) -> None:
        """Write the weights from the coordinates."""

    def restart(self) -> None:
        """Begin anew at the weights as they are."""


class LowRank(Parametrisation):
    """Low-rank changes of matrices: W = W0 + s·A·B.

    A has normally distributed entries of variance 1 / rank and B is zero, so that the weights
    begin at W0 and Adam's first update changes an entry of W by about the learning rate times s,
    as it would without factors. ∂L/∂A = s·G·Bᵀ and ∂L/∂B = s·Aᵀ·G, with G = ∂L/∂W.

    Source: Hu et al., arXiv:2106.09685, section 4.1.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        places: Sequence[int],
        factors: Sequence[float],
        matrices: Sequence[Sequence[tuple[int, int]]],
        *,
        rank: int,
        scale: float,
        seed: int,
    ) -> None:
        """Draw the factors.

        Args:
            weights: They are changed in place.
            places: Of each.
            factors: Of the learning rate of each.
            matrices: Of each weight, rows and columns of the matrices that it holds one after
                the other, all of it.
            rank: Columns of A and rows of B, where the matrix is as large.
            scale: s.
            seed: Of A.
        """
        super().__init__(weights, places, factors)
        self._scale = scale
        self._rng = np.random.default_rng([seed, 0, 3])
        self._starts = [_copy(weight) for weight in self.weights]
        self._factors = [
            [_zeros(weight, shape, rank) for shape in shapes]
            for weight, shapes in zip(self.weights, matrices, strict=True)
        ]
        self.groups = _group(
            factors, [[each for pair in pairs for each in pair] for pairs in self._factors]
        )
        self.restart()

    @torch.no_grad()
    def pull_back(self) -> None:
        """See ``Parametrisation.pull_back``; none are left with the weights."""
        for weight, pairs in zip(self.weights, self._factors, strict=True):
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            for (a, b), matrix in zip(pairs, _matrices(gradient, pairs), strict=True):
                a.grad = self._scale * (matrix @ b.T)
                b.grad = self._scale * (a.T @ matrix)
            weight.grad = None

    @torch.no_grad()
    def write(self) -> None:
        """See ``Parametrisation.write``."""
        for weight, start, pairs in zip(self.weights, self._starts, self._factors, strict=True):
            merged = start.clone()
            for (a, b), matrix in zip(pairs, _matrices(merged, pairs), strict=True):
                matrix.addmm_(a, b, alpha=self._scale)
            weight.copy_(merged)

    @torch.no_grad()
    def restart(self) -> None:
        """See ``Parametrisation.restart``: with A drawn again, and B zero."""
        for weight, start, pairs in zip(self.weights, self._starts, self._factors, strict=True):
            start.copy_(weight)
            for a, b in pairs:
                drawn = self._rng.standard_normal(tuple(a.shape)) / sqrt(a.shape[1])
                a.copy_(torch.from_numpy(drawn).to(a))
                b.zero_()


def check_blocks(potential: Potential, options: WeightOptions) -> None:
    """Raise unless a potential has the blocks that are named.

    Raises:
        UnknownNameError: It has not; the message lists its blocks.
    """
    for block in options.train_blocks:
        check_name("train_blocks", block, potential.blocks)
    for block in options.rates:
        check_name("block_rates", block, potential.blocks)


def parametrise(
    potential: TorchPotential, options: WeightOptions, *, seed: int
) -> tuple[Parametrisation, Trained]:
    """Return what is trained of a potential.

    Args:
        potential: Its weights are changed as training goes on.
        options: Which and how.
        seed: Of what is drawn.

    Raises:
        ArgumentError: Unknown blocks, blocks without weights or, of low rank, without matrices,
            or a weight whose learning rate two blocks set.
    """
    check_blocks(potential, options)
    names, every = _named_weights(potential)
    chosen = _in_blocks(potential, options.train_blocks)
    shapes = potential.matrix_shapes()
    places = [
        place
        for place, weight in enumerate(every)
        if id(weight) in chosen and (options.lora_rank is None or names[place] in shapes)
    ]
    if not places:
        what = "weights" if options.lora_rank is None else "matrices, of which lora_rank is"
        raise ArgumentError(
            f"train_blocks is {','.join(options.train_blocks)}, but {potential.name} has no {what} "
            "there; choose others"
        )
    weights = [every[place] for place in places]
    rates = _rates(potential, options.rates)
    factors = [rates.get(id(weight), 1.0) for weight in weights]
    if options.lora_rank is None:
        made = Parametrisation(weights, places, factors)
    else:
        alpha = options.lora_rank if options.lora_alpha is None else options.lora_alpha
        matrices = [shapes[names[place]] for place in places]
        made = LowRank(
            weights,
            places,
            factors,
            matrices,
            rank=options.lora_rank,
            scale=alpha / options.lora_rank,
            seed=seed,
        )
    return made, Trained(
        blocks=options.train_blocks,
        n_weights=sum(weight.numel() for weight in weights),
        n_coordinates=sum(tensor.numel() for tensor in made.coordinates),
        n_all=sum(weight.numel() for weight in every),
    )


def describe_trained(trained: Trained, options: WeightOptions) -> str | None:
    """Say what is trained and what holds it back, in a sentence; None for all, by nothing."""
    if options.trains_everything and options.anchor == "none":
        return None
    blocks, n_weights = " and ".join(trained.blocks), f"{trained.n_weights:,}"
    parts = [f"Trained: {blocks}, {n_weights} of {trained.n_all:,} weights"]
    if options.lora_rank is not None:
        parts.append(
            f"as changes of rank {options.lora_rank} made of {trained.n_coordinates:,} numbers"
        )
    parts += [f"{block} at {rate:g} of the learning rate" for block, rate in options.rates.items()]
    if options.anchor != "none":
        parts.append(f"held to the start by {options.anchor} of weight {options.penalty_weight:g}")
    return "; ".join(parts) + "."


def _named_weights(potential: TorchPotential) -> tuple[list[str], list[Tensor]]:
    """Return the weights that training may change, and their names in the model."""
    every = potential.trained_weights()
    names = {id(weight): name for name, weight in potential.model.named_parameters()}
    return [names[id(weight)] for weight in every], every


def _in_blocks(potential: TorchPotential, blocks: Sequence[str]) -> set[int]:
    return {id(weight) for block in blocks for weight in potential.block_weights(block)}


def _rates(potential: TorchPotential, rates: Mapping[str, float]) -> dict[int, float]:
    found: dict[int, float] = {}
    for block, rate in rates.items():
        weights = _in_blocks(potential, [block])
        if weights & found.keys():
            raise ArgumentError(
                f"block_rates has {block!r} and a block that holds some of the same weights"
            )
        found |= dict.fromkeys(weights, rate)
    return found


def _group(
    factors: Sequence[float], tensors: Sequence[Sequence[Tensor]]
) -> list[tuple[float, list[Tensor]]]:
    """Put together what has the same factor."""
    return [
        (
            factor,
            [
                each
                for own, members in zip(factors, tensors, strict=True)
                if own == factor
                for each in members
            ],
        )
        for factor in dict.fromkeys(factors)
    ]


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().clone(memory_format=torch.contiguous_format)


def _zeros(
    weight: Tensor, shape: tuple[int, int], rank: int
) -> tuple[Float[Tensor, "m r"], Float[Tensor, "r n"]]:
    rank = min(rank, *shape)
    return weight.new_zeros(shape[0], rank), weight.new_zeros(rank, shape[1])


def _matrices(
    tensor: Tensor, pairs: Sequence[tuple[Float[Tensor, "m r"], Float[Tensor, "r n"]]]
) -> list[Float[Tensor, "m n"]]:
    """Return the matrices that a tensor holds one after the other, views if it is contiguous."""
    shapes = [(a.shape[0], b.shape[1]) for a, b in pairs]
    sizes = [rows * columns for rows, columns in shapes]
    pieces = torch.split(tensor.reshape(-1), sizes)
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
