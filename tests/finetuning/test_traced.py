"""The traced update is the loss and gradient of the lean network, for every batch and weight."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from labelwise.finetuning.loss import Targets, weight_targets, weighted_huber_loss
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.potentials.mace.potential import MacePotential
from labelwise.potentials.mace.training.lean_mace import LeanMace
from labelwise.potentials.mace.training.traced import (
    WeightList,
    huber,
    prediction_inputs,
    trace_prediction,
    trace_update,
    update_inputs,
)
from tests.finetuning.conftest import NAMES, make_potential_of, rattle

KINDS: dict[str, dict[str, Any]] = {
    "third order": {"correlation": 3},
    "not residual": {"interaction_first": "RealAgnosticInteractionBlock", "n_layers": 1},
    "several heads": {"heads": ("pbe", "Default", "r2scan")},
}
BATCHES: dict[str, list[Atoms]] = {
    "several": rattle(NAMES, 4, seed=3),
    "one": rattle(NAMES, 1, seed=4),
    "one pair": [molecule("H2")],
    "one atom": [Atoms("O")],
    "an atom and a pair": [Atoms("O"), molecule("H2")],
}
RECIPE = Recipe(energy_weight=3.0, forces_weight=7.0, huber_delta=0.05)


def trainable(seed: int, **settings: Any) -> MacePotential:
    view = require_trainable(make_potential_of(seed=seed, **settings)).copy().without_references()
    for weight in view.trained_weights():
        weight.requires_grad_(True)
    return view


@cache
def traced(kind: str) -> Any:
    """Trace once for all batches, from other weights than those of the tests."""
    return trace_update(trainable(1, **KINDS[kind]))


def targets_of(potential: MacePotential, structures: list[Atoms]) -> Targets:
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([float(len(atoms)) for atoms in structures], dtype=potential.dtype)
    draw = {"generator": generator, "dtype": potential.dtype}
    n_atoms = sum(len(atoms) for atoms in structures)
    return Targets(
        torch.randn(len(counts), **draw),  # type: ignore[call-overload]
        torch.randn(n_atoms, 3, **draw),  # type: ignore[call-overload]
        counts,
    )


@pytest.mark.parametrize("batch_name", BATCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_the_loss_and_its_gradient(kind: str, batch_name: str) -> None:
    potential = trainable(0, **KINDS[kind])
    potential.model.scale_shift.scale.mul_(1.7)
    structures = BATCHES[batch_name]
    network, weights = LeanMace(potential), potential.trained_weights()
    batch = network.collate(network.prepare([potential.prepare(a) for a in structures]))
    targets = targets_of(potential, structures)
    energies, forces = network.energies_and_forces(batch, training=True)
    loss = weighted_huber_loss(energies, forces, targets, RECIPE)
    expected = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)

    inputs = update_inputs(batch, weight_targets(targets, RECIPE))
    found, *gradients = traced(kind)(*WeightList(potential).tensors(), *inputs)

    torch.testing.assert_close(found, loss.detach(), rtol=1e-12, atol=1e-12)
    assert len(gradients) == len(expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_a_prediction_is_the_networks() -> None:
    graph = trace_prediction(trainable(1, correlation=3))
    potential = trainable(0, correlation=3)
    network = LeanMace(potential)
    for structures in BATCHES.values():
        batch = network.collate(network.prepare([potential.prepare(a) for a in structures]))
        energies, forces = network.energies_and_forces(batch, training=False)
        found = graph(*WeightList(potential).tensors(), *prediction_inputs(batch))
        torch.testing.assert_close(found[0][: len(energies)], energies.detach())
        torch.testing.assert_close(found[1][: len(forces)], forces.detach())


def test_a_traced_update_has_no_autograd() -> None:
    names = {str(node.target) for node in traced("third order").graph.nodes}
    assert "aten.bmm.default" in names
    assert not any("autograd" in name for name in names)


def test_huber_is_torchs() -> None:
    x = torch.linspace(-0.3, 0.3, 31, dtype=torch.float64)
    delta = torch.tensor(0.1, dtype=torch.float64)
    expected = torch.nn.functional.huber_loss(x, torch.zeros_like(x), delta=0.1, reduction="none")
    torch.testing.assert_close(huber(x, delta), expected)
