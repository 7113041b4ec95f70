"""One update, and one prediction, of a lean network as a flat graph of tensor operations.

Energies, forces, stress if wanted, loss and its gradient are traced into one list of operations
without autograd, with weights, geometry, targets and the weights of the loss as inputs. Sizes of a
batch stay open, so that one graph serves every batch of every training set; a size of one would be
taken for a constant, so batches are filled up to two of everything.

Sizes: P pairs, N atoms, W places for neighbours, Z elements present, A places for the atoms of
an element, n structures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.mace.potential import MacePotential
from labelwise.potentials.mace.training.lean_batch import LeanBatch
from labelwise.potentials.mace.training.lean_mace import LeanMace
from labelwise.potentials.training import WeightedTargets

# The open sizes of each input by axis; "." is a size that the architecture fixes.
_BATCH_AXES = {
    "harmonics": "P.",
    "harmonics_slope": "P..",
    "radial": "P.",
    "radial_slope": "P.",
    "directions": "P.",
    "lengths": "P",
    "volumes": "n",
    "ends": ".P",
    "neighbours": "NW",
    "pairs": "NW",
    "signs": "NW.",
    "species": "N",
    "present": "Z",
    "group": "ZA",
    "back": "N",
    "structure_idx": "N",
}
_TARGET_AXES = {
    "atom_counts": "n",
    "energies": "n",
    "forces": "N.",
    "energy_shares": "n",
    "force_shares": "N",
    "huber_delta": "",
}
_STRESS_AXES = {"stresses": "n..", "stress_shares": "n"}
UPDATE_AXES = (*_BATCH_AXES.values(), *_TARGET_AXES.values())
STRESS_UPDATE_AXES = (*UPDATE_AXES, *_STRESS_AXES.values())
PREDICTION_AXES = (*_BATCH_AXES.values(), _TARGET_AXES["atom_counts"])
#: Sizes to trace with: all different, because equal ones would count as one.
_EXAMPLE = {"P": 11, "N": 7, "W": 5, "Z": 2, "A": 3, "n": 4}
#: Inputs that are whole numbers.
_WHOLE = (
    "ends",
    "neighbours",
    "pairs",
    "species",
    "present",
    "group",
    "back",
    "structure_idx",
)
_SCALES = ("scale_shift.scale", "scale_shift.shift")


class WeightList:
    """The tensors of a model that a graph takes as inputs, in a fixed order.

    Attributes:
        names: (w,) names in the module; those that are trained come first.
        n_trained: How many are trained.
    """

    def __init__(self, potential: MacePotential) -> None:
        """List the weights of a model that ``supports`` covers."""
        self._model = potential.model
        trained = {id(weight) for weight in potential.trained_weights()}
        named = list(self._model.named_parameters())
        first = [name for name, weight in named if id(weight) in trained]
        others = [name for name, weight in named if id(weight) not in trained]
        self.names = (*first, *others, *_SCALES)
        self.n_trained = len(first)

    def tensors(self) -> list[Tensor]:
        """Return the tensors as they are now, (w,), without gradients."""
        held: Mapping[str, Tensor] = dict(self._model.named_parameters())
        found = [held[name] for name in self.names[: -len(_SCALES)]]
        scales = [self._model.get_buffer(name) for name in _SCALES]
        return [tensor.detach() for tensor in (*found, *scales)]


def trace_update(potential: MacePotential, *, stress: bool = False) -> torch.fx.GraphModule:
    """Trace loss and gradients; ``supports(potential)`` must hold.

    Args:
        potential: The architecture; its weights are inputs of the graph.
        stress: Whether there are targets of the stress.

    Returns:
        A function of ``WeightList.tensors`` and ``update_inputs``: the loss, a scalar, and its
        gradient by each trained weight.
    """
    weights, network = WeightList(potential), _Network(potential)
    axes, n_targets = STRESS_UPDATE_AXES if stress else UPDATE_AXES, len(_TARGET_AXES)

    def update(*inputs: Tensor) -> tuple[Tensor, ...]:
        held, batch, targets = _split(inputs, len(weights.names))
        held = [
            tensor.detach().requires_grad_(i < weights.n_trained) for i, tensor in enumerate(held)
        ]
        counts, energies, forces, energy_shares, force_shares, delta = targets[:n_targets]
        found = network.evaluate(weights.names, held, batch, counts, training=True, stress=stress)
        energy = huber((found[0] - energies) / counts, delta)
        force = huber(found[1] - forces, delta).sum(1)
        loss = (energy_shares * energy).sum() + (force_shares * force).sum()
        if stress:
            stresses, stress_shares = targets[n_targets:]
            loss = loss + (stress_shares * huber(found[2] - stresses, delta).sum((1, 2))).sum()
        gradients = torch.autograd.grad(
            loss, held[: weights.n_trained], allow_unused=True, materialize_grads=True
        )
        return (loss.detach(), *gradients)

    return _trace(update, weights.tensors(), example_inputs(potential, axes), axes)


def trace_prediction(potential: MacePotential, *, stress: bool = False) -> torch.fx.GraphModule:
    """Trace energies and forces, and stress if wanted; see ``trace_update``.

    Returns:
        A function of ``WeightList.tensors`` and ``prediction_inputs``: energies (n,) in eV,
        forces (N, 3) in eV/Å and stress (n, 3, 3) in eV/Å³.
    """
    weights, network = WeightList(potential), _Network(potential)

    def predict(*inputs: Tensor) -> tuple[Tensor, ...]:
        held, batch, (counts,) = _split(inputs, len(weights.names))
        found = network.evaluate(weights.names, held, batch, counts, training=False, stress=stress)
        return tuple(each.detach() for each in found)

    example = example_inputs(potential, PREDICTION_AXES)
    return _trace(predict, weights.tensors(), example, PREDICTION_AXES)


def update_inputs(batch: LeanBatch, targets: WeightedTargets) -> list[Tensor]:
    """Write a batch and its targets as inputs of ``trace_update``'s graph."""
    values = [
        targets.atom_counts,
        targets.energies,
        targets.forces,
        targets.energy_shares,
        targets.force_shares,
        targets.delta,
    ]
    if targets.stresses is None or targets.stress_shares is None:
        return _fill_up([*_tensors_of(batch), *values], UPDATE_AXES)
    values += [targets.stresses, targets.stress_shares]
    return _fill_up([*_tensors_of(batch), *values], STRESS_UPDATE_AXES)


def prediction_inputs(batch: LeanBatch) -> list[Tensor]:
    """Write a batch as inputs of ``trace_prediction``'s graph."""
    counts = batch.harmonics.new_ones(batch.n_structures)
    return _fill_up([*_tensors_of(batch), counts], PREDICTION_AXES)


def example_inputs(potential: MacePotential, axes: Sequence[str]) -> list[Tensor]:
    """Make inputs for ``UPDATE_AXES`` or ``PREDICTION_AXES``; their values do not matter."""
    model = potential.model
    n_components = (int(model.spherical_harmonics._lmax) + 1) ** 2
    n_radial = int(model.radial_embedding.out_dim)
    fixed = {
        "harmonics": (n_components,),
        "harmonics_slope": (n_components, 3),
        "radial": (n_radial,),
        "radial_slope": (n_radial,),
        "directions": (3,),
        "ends": (2,),
        "signs": (n_components,),
        "forces": (3,),
        "stresses": (3, 3),
    }
    out = []
    for name, letters in zip((*_BATCH_AXES, *_TARGET_AXES, *_STRESS_AXES), axes, strict=False):
        rest = iter(fixed.get(name, ()))
        shape = [next(rest) if letter == "." else _EXAMPLE[letter] for letter in letters]
        dtype = torch.int64 if name in _WHOLE else potential.dtype
        out.append(torch.ones(shape, dtype=dtype, device=potential.device))
    return out


def huber(difference: Float[Tensor, "*shape"], delta: Float[Tensor, ""]) -> Float[Tensor, "*shape"]:
    """Return Huber's function, a parabola within ±delta and lines beyond."""
    size = difference.abs()
    inner = torch.minimum(size, delta)
    return inner * (size - 0.5 * inner)


class _Network(torch.nn.Module):
    """A lean network whose weights can be replaced for a call."""

    def __init__(self, potential: MacePotential) -> None:
        super().__init__()
        self.model = potential.model
        self._lean = LeanMace(potential)

    def forward(self, batch: Sequence[Tensor], counts: Tensor, training: bool, stress: bool) -> Any:
        tensors: Any = dict(zip(_BATCH_AXES, batch, strict=True))
        joined = LeanBatch(**tensors, n_structures=counts.shape[0])
        if stress:
            return self._lean.energies_forces_stresses(joined, training=training)
        return self._lean.energies_and_forces(joined, training=training)

    def evaluate(
        self,
        names: Sequence[str],
        weights: Sequence[Tensor],
        batch: Sequence[Tensor],
        counts: Tensor,
        *,
        training: bool,
        stress: bool,
    ) -> tuple[Tensor, ...]:
        held = {f"model.{name}": tensor for name, tensor in zip(names, weights, strict=True)}
        found: tuple[Tensor, ...] = torch.func.functional_call(
            self, held, (batch, counts, training, stress)
        )
        return found


def _trace(
    function: Callable[..., tuple[Tensor, ...]],
    weights: Sequence[Tensor],
    example: Sequence[Tensor],
    axes: Sequence[str],
) -> torch.fx.GraphModule:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        ShapeEnv,
        StatelessSymbolicContext,
    )

    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)

    def fake(tensor: Tensor, letters: str) -> Tensor:
        sizes = [DimDynamic.STATIC if each == "." else DimDynamic.DUCK for each in letters]
        context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
        return mode.from_tensor(tensor, symbolic_context=context)

    inputs = [fake(weight, "." * weight.dim()) for weight in weights]
    inputs += [fake(tensor, letters) for tensor, letters in zip(example, axes, strict=True)]
    with torch.enable_grad():
        graph = make_fx(function, tracing_mode="real", _allow_non_fake_inputs=True)(*inputs)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _split(
    inputs: Sequence[Tensor], n_weights: int
) -> tuple[list[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    rest = inputs[n_weights:]
    n_batch = len(_BATCH_AXES)
    return list(inputs[:n_weights]), rest[:n_batch], rest[n_batch:]


def _tensors_of(batch: LeanBatch) -> list[Tensor]:
    return [getattr(batch, each.name) for each in fields(batch) if each.name in _BATCH_AXES]


def _fill_up(tensors: Sequence[Tensor], axes: Sequence[str]) -> list[Tensor]:
    """Fill a batch up to two of everything; what is added has no share in the results."""
    sizes = {
        letter: size
        for tensor, letters in zip(tensors, axes, strict=True)
        for letter, size in zip(letters, tensor.shape, strict=True)
    }
    wanted = {letter: max(2, size) for letter, size in sizes.items() if letter != "."}
    filled = [tensor.contiguous() for tensor in tensors]
    if all(sizes[letter] == size for letter, size in wanted.items()):
        return filled
    for i, (tensor, letters) in enumerate(zip(tensors, axes, strict=True)):
        shape = [wanted.get(x, size) for x, size in zip(letters, tensor.shape, strict=True)]
        filled[i] = tensor.new_zeros(shape)
        filled[i][tuple(slice(size) for size in tensor.shape)] = tensor
    places = list(_BATCH_AXES)
    back, structure_idx = places.index("back"), places.index("structure_idx")
    row = torch.div(filled[back], sizes["A"], rounding_mode="floor")
    filled[back] = filled[back] + row * (wanted["A"] - sizes["A"])
    filled[structure_idx][sizes["N"] :] = wanted["n"] - 1  # a structure that was added
    filled[len(places)][sizes["n"] :] = 1  # atoms, by which energies are divided
    return filled
