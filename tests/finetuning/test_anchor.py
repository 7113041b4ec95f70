"""Penalties on leaving the start, and the Fisher information by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.finetuning.anchor import N_GRADIENTS, Anchor, estimate_fisher, signed_gradient
from labelwise.finetuning.loss import Targets, weighted_huber_loss
from labelwise.finetuning.networks import PreparedSet
from labelwise.finetuning.pretraining_set import prepare_pretraining_set
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential
from tests.finetuning.test_networks import trainable

RECIPE = Recipe(energy_weight=3.0, forces_weight=7.0)


def fisher_by_hand(potential: Any, structures: list[Atoms]) -> list[torch.Tensor]:
    """Square each row of the Jacobian of energies and forces, one after the other."""
    weights = potential.trained_weights()
    total = [torch.zeros_like(weight) for weight in weights]
    for atoms in structures:
        batch = potential.collate([potential.prepare(atoms)])
        positions = batch.positions.clone().requires_grad_()
        energy = potential.interaction_energies(batch, positions=positions).sum()
        slope = torch.autograd.grad(energy, positions, create_graph=True)[0]
        n = len(atoms)
        rows = [(RECIPE.energy_weight, energy / n)]
        rows += [(RECIPE.forces_weight / (3 * n), each) for each in slope.reshape(-1)]
        for share, value in rows:
            gradients = torch.autograd.grad(
                value, weights, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for sum_, gradient in zip(total, gradients, strict=True):
                sum_ += share * gradient**2 / len(structures)
    return total


def close() -> list[Atoms]:
    """Two atoms and three, no force of which symmetry makes zero."""
    water = molecule("H2O")
    water.rattle(0.1, seed=0)
    return [Atoms("OH", [[0, 0, 0], [0.5, 0.7, 0.3]]), water]


def prepared(potential: Any, structures: list[Atoms]) -> tuple[Any, PreparedSet]:
    network = potential.training_network()
    return network, PreparedSet(network, [potential.prepare(atoms) for atoms in structures])


def test_signs_average_to_the_fisher_information() -> None:
    """Over all signs of the energy and six components: exact."""
    potential = trainable()
    weights = potential.trained_weights()
    _, inputs = prepared(potential, close()[:1])
    total = [torch.zeros_like(weight) for weight in weights]
    for signs in product((-1.0, 1.0), repeat=7):
        found = signed_gradient(inputs, 0, weights, RECIPE, np.array(signs))
        torch._foreach_addcmul_(total, found, found, value=1 / 2**7)
    for ours, theirs in zip(total, fisher_by_hand(potential, close()[:1]), strict=True):
        scale = float(theirs.max())
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10 * scale)


def test_the_estimate_is_the_fisher_information_within_its_error() -> None:
    potential = trainable()
    weights = potential.trained_weights()
    _, inputs = prepared(potential, close())
    none = np.zeros(2, dtype=bool)
    found = estimate_fisher(inputs, none, weights, RECIPE, seed=0)
    again = estimate_fisher(inputs, none, weights, RECIPE, seed=0)
    exact = fisher_by_hand(potential, close())
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert all((each >= 0).all() for each in found)
    # g² of a sum of signs has at most twice the variance of a squared normal variable.
    for ours, theirs in zip(found, exact, strict=True):
        error = 5 * np.sqrt(2 / N_GRADIENTS) * theirs + 5 * theirs.mean() / N_GRADIENTS
        assert ((ours - theirs).abs() <= 3 * error).all()
        assert float(ours.sum()) == pytest.approx(float(theirs.sum()), rel=0.5)


def test_stress_that_counts_is_in_the_fisher_information() -> None:
    """Against mace-torch's own stress, component by component, of the one that has a label."""
    potential = trainable()
    weights = potential.trained_weights()
    crystal = bulk("CO", "rocksalt", a=3.6)
    crystal.rattle(0.1, seed=0)
    crystal.set_cell(crystal.cell.array @ (np.eye(3) + 0.03 * np.eye(3)[[1, 2, 0]]), True)
    structures = [crystal, crystal]
    _, inputs = prepared(potential, structures)
    recipe = replace(RECIPE, stress_weight=5e4)
    plain = fisher_by_hand(potential, structures)
    of_stress = [torch.zeros_like(weight) for weight in weights]
    batch = potential._inputs(potential.collate([potential.prepare(crystal)]), None)
    stress = potential.model(batch, training=True, compute_stress=True)["stress"]
    for component in stress.reshape(-1):
        rows = torch.autograd.grad(
            component, weights, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        torch._foreach_addcmul_(of_stress, rows, rows, value=5e4 / 9)
    total = [torch.zeros_like(weight) for weight in weights]
    for unit in np.eye(10 + 3 * len(crystal)):  # each term by itself: exact
        found = signed_gradient(inputs, 0, weights, recipe, unit)
        torch._foreach_addcmul_(total, found, found)
    exact = torch._foreach_add(plain, of_stress)
    largest = max(range(len(weights)), key=lambda i: float(of_stress[i].sum()))
    assert float(of_stress[largest].sum()) > 0.3 * float(plain[largest].sum())
    for ours, theirs in zip(total, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10 * float(theirs.max()))

    half = estimate_fisher(inputs, np.array([True, False]), weights, recipe, seed=0)
    ignored = replace(recipe, stress_weight=0.0)
    without, none = (
        estimate_fisher(inputs, known, weights, each, seed=0)
        for known, each in ((np.ones(2, dtype=bool), ignored), (np.zeros(2, dtype=bool), recipe))
    )
    assert all(torch.equal(a, b) for a, b in zip(without, none, strict=True))
    expected = plain[largest].sum() + of_stress[largest].sum() / 2
    assert float(half[largest].sum()) == pytest.approx(float(expected), rel=0.3)


def test_the_penalty_is_the_loss_of_the_start_s_own_predictions_to_second_order() -> None:
    """Where one weight is moved, against the mean loss of each structure by itself."""
    potential = trainable()
    structures = close()
    network, inputs = prepared(potential, structures)
    weights = potential.trained_weights()
    exact = fisher_by_hand(potential, structures)
    wide = replace(RECIPE, huber_delta=1e6)
    aims = [
        [each.detach() for each in network.energies_and_forces(inputs.batch([i]), training=False)]
        for i in range(2)
    ]
    largest = sorted(range(len(weights)), key=lambda i: -float(exact[i].max()))[:4]
    for place in largest:
        flat, entry = weights[place].view(-1), int(exact[place].argmax())
        growth = 0.0
        for step in (1e-4, -1e-4):  # third orders cancel
            with torch.no_grad():
                flat[entry] += step
            for i, (energies, forces) in enumerate(aims):
                counts = torch.tensor([float(len(structures[i]))], dtype=energies.dtype)
                now = network.energies_and_forces(inputs.batch([i]), training=False)
                loss = weighted_huber_loss(*now, Targets(energies, forces, counts), wide)
                growth += float(loss.detach()) / 4
            with torch.no_grad():
                flat[entry] -= step
        assert growth == pytest.approx(0.5 * float(exact[place].max()) * 1e-8, rel=1e-3)


@pytest.mark.parametrize("stiff", [False, True])
def test_the_gradient_is_that_of_the_penalty(stiff: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in ((3, 2), (4,), ())
    ]
    starts = [weight.detach().clone() for weight in weights]
    stiffness = [torch.rand(w.shape, dtype=w.dtype, generator=generator) for w in weights]
    anchor = Anchor(weights, 0.7, stiffness if stiff else None)
    with torch.no_grad():
        for weight in weights:
            weight.add_(0.3 * torch.randn(weight.shape, dtype=weight.dtype, generator=generator))
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    weights[0].grad = torch.ones_like(weights[0])  # of the loss
    anchor.add_gradient()
    found = [weight.grad for weight in weights]
    factors = stiffness if stiff else [torch.ones_like(weight) for weight in weights]
    penalty = sum(
        0.35 * (f * (w - s) ** 2).sum() for f, w, s in zip(factors, weights, starts, strict=True)
    )
    expected = list(torch.autograd.grad(penalty, weights))
    expected[0] = expected[0] + 1.0
    for ours, theirs in zip(found, expected, strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("anchor", "weight"), [("l2", 1e3), ("ewc", 100.0)])
def test_a_pull_keeps_predictions_nearer(
    student: Potential, train: list[Atoms], anchor: str, weight: float
) -> None:
    recipe = Recipe(batch_size=4, learning_rate=0.01, max_updates=30)
    held = replace(recipe, anchor=anchor, anchor_weight=weight)
    batch = student.collate([student.prepare(atoms) for atoms in train])

    def leave(recipe: Recipe) -> float:
        fitted = finetune(student, train, [], recipe, seed=0)
        told = f"held to the start by {anchor} of weight {weight:g}"
        assert any(told in note for note in fitted.notes) == (recipe is held)
        before, after = (each.predict(batch).forces for each in (student, fitted.potential))
        return float((after - before).square().mean().sqrt())

    assert leave(held) < 0.6 * leave(recipe)


def test_the_first_update_is_the_same_with_an_anchor(
    student: Potential, train: list[Atoms]
) -> None:
    """At the start the penalty has no slope; the losses that are recorded are without it."""
    plain = Recipe(batch_size=12, learning_rate=0.01, max_updates=1)
    held = replace(plain, anchor="l2", anchor_weight=1e6)
    first, second = (finetune(student, train, [], recipe, seed=0) for recipe in (plain, held))
    assert first.potential.content_hash == second.potential.content_hash
    assert first.history[-1].train_loss == second.history[-1].train_loss


def test_what_is_replayed_says_what_matters(student: Potential, train: list[Atoms]) -> None:
    """Also where it counts nothing in the loss; its own labels do not matter."""
    recipe = Recipe(
        batch_size=6, learning_rate=0.01, max_updates=3, anchor="ewc", anchor_weight=10.0
    )
    own, silent = recipe, replace(recipe, replay_weight=0.0)
    known = prepare_pretraining_set(student, [molecule("CH3CH2OH")], labels="model")
    hashes = [
        finetune(student, train[:6], [], own, seed=0).potential.content_hash,
        finetune(student, train[:6], [], silent, seed=0, replay=known).potential.content_hash,
        finetune(
            student,
            train[:6],
            [],
            replace(silent, anchor="none", anchor_weight=None),
            seed=0,
            replay=known,
        ).potential.content_hash,
    ]
    assert len(set(hashes)) == 3
