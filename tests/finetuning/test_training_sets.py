"""Isolated atoms, weights and heads of labelled structures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from labelwise.errors import ArgumentError, LabelError
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.labelled import prepare_labelled
from labelwise.finetuning.loss import Targets, collate_targets, weight_targets, weighted_huber_loss
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential
from labelwise.potentials.mace.loading import make_potential
from labelwise.potentials.mace.training.lean_mace import LeanMace
from labelwise.potentials.mace.training.traced import WeightList, update_inputs
from tests.finetuning.conftest import NAMES, rattle
from tests.finetuning.test_traced import KINDS, RECIPE, traced, trainable
from tests.potentials.models import make_mace

SHORT = Recipe(max_updates=4, batch_size=3, max_validations=2)
LONE = {"H": -3.2, "C": -40.5, "O": -75.5}


def lone_atoms(**info: Any) -> list[Atoms]:
    """Isolated atoms as MACE's users have them: without forces."""
    return [Atoms(symbol, info={"REF_energy": e, **info}) for symbol, e in LONE.items()]


@pytest.mark.parametrize("info", [{"config_type": "IsolatedAtom"}, {}])
def test_isolated_atoms_are_reference_energies_and_no_samples(
    student: Potential, train: list[Atoms], valid: list[Atoms], info: dict[str, str]
) -> None:
    known = {1: -3.2, 6: -40.5, 8: -75.5}
    expected = finetune(student, train, valid, SHORT, seed=0, isolated_atoms=known)
    found = finetune(student, lone_atoms(**info) + train, lone_atoms() + valid, SHORT, seed=0)
    assert found.potential.content_hash == expected.potential.content_hash
    assert [r.valid for r in found.history] == [r.valid for r in expected.history]
    assert "6 labelled isolated atoms are no sample to fit (H, C and O" in found.messages[0]


def test_isolated_atoms_are_in_no_error(student: Potential, valid: list[Atoms]) -> None:
    names = ["a"] * 9
    expected = evaluate(student, valid, splits=names[:6])
    found = evaluate(student, lone_atoms() + valid, splits=names)
    assert found.errors == expected.errors
    assert found.split_errors == expected.split_errors
    assert len(found.energies) == len(found.forces) == 9


def test_isolated_atoms_that_contradict_each_other(student: Potential, train: list[Atoms]) -> None:
    with pytest.raises(LabelError, match=r"an isolated atom of H has -3\.2 eV, and -4 eV"):
        finetune(student, lone_atoms() + train, [], SHORT, seed=0, isolated_atoms={1: -4.0})
    with pytest.raises(LabelError, match=r"validation structure 0 \(H\): an isolated atom of H"):
        other = Atoms("H", info={"REF_energy": -5.0})
        finetune(student, lone_atoms() + train, [other], SHORT, seed=0)
    with pytest.raises(ArgumentError, match="of 3 training structures none is left: 3 are iso"):
        finetune(student, lone_atoms(), [], SHORT, seed=0)


def test_a_structure_of_weight_zero_is_left_out(student: Potential, train: list[Atoms]) -> None:
    expected = finetune(student, train[::2], train[:6:2], SHORT, seed=0)
    for i, atoms in enumerate(train):
        atoms.info["config_weight"] = float(i % 2 == 0)
        if i % 2:
            atoms.arrays["REF_forces"] = atoms.arrays["REF_forces"] + 50.0
    found = finetune(student, train, train[:6], SHORT, seed=0)
    assert found.potential.content_hash == expected.potential.content_hash
    assert [r.valid_loss for r in found.history] == [r.valid_loss for r in expected.history]
    assert "Of 12 training structures" in found.messages[0]
    assert "6 have weight 0 and are left out" in found.messages[0]
    for atoms in train:
        atoms.info["config_weight"] = 0
    with pytest.raises(ArgumentError, match="the others have weight 0"):
        finetune(student, train, [], SHORT, seed=0)


def test_energies_of_weight_zero_decide_no_reference(
    student: Potential, train: list[Atoms]
) -> None:
    recipe = replace(SHORT, reference_energies="refit")
    expected = finetune(student, train[:6], [], recipe, seed=0).reference_energies
    for atoms in train[6:]:
        atoms.info["config_energy_weight"] = 0.0
        atoms.info["REF_energy"] -= 5.0
    found = finetune(student, train, [], recipe, seed=0)
    assert found.reference_energies == pytest.approx(expected)
    assert "6 have energies of weight 0" in found.messages[0]


WEIGHTS = [{"config_weight": 2.0}, {"config_energy_weight": 0.5}, {"config_forces_weight": 3}]


def weighted(n: int = 3) -> list[Atoms]:
    structures = rattle(NAMES, n, seed=5)
    for atoms, info in zip(structures, WEIGHTS, strict=False):
        atoms.info |= {"REF_energy": -1.0, **info}
        atoms.arrays["REF_forces"] = np.ones((len(atoms), 3))
    return structures


@pytest.mark.parametrize("kind", ["third order"])
def test_weights_multiply_the_terms_of_the_loss_on_every_road(kind: str) -> None:
    """Eager and traced loss and gradient, against sums over structures written out."""
    potential = trainable(0, **KINDS[kind])
    structures = weighted()
    labelled = prepare_labelled(potential.graph_builder, structures, role="training")
    assert labelled.energy_weights.tolist() == [2.0, 0.5, 1.0]
    assert labelled.forces_weights.tolist() == [2.0, 1.0, 3.0]
    about = {"dtype": potential.dtype, "device": potential.device}
    targets = collate_targets(labelled, np.zeros(3), range(3), **about)
    network, weights = LeanMace(potential), potential.trained_weights()
    batch = network.collate(network.prepare(labelled.graphs))
    energies, forces = network.energies_and_forces(batch, training=True)
    n_atoms = sum(map(len, structures))
    expected: Any = 0.0
    start = 0
    for i, atoms in enumerate(structures):
        own = slice(start, start := start + len(atoms))
        alone = Targets(targets.energies[[i]], targets.forces[own], targets.atom_counts[[i]])
        for energy, force, share in (
            (RECIPE.energy_weight, 0.0, labelled.energy_weights[i] / 3),
            (0.0, RECIPE.forces_weight, labelled.forces_weights[i] * len(atoms) / n_atoms),
        ):
            recipe = replace(RECIPE, energy_weight=max(energy, 1e-300), forces_weight=force)
            term = weighted_huber_loss(energies[[i]], forces[own], alone, recipe)
            expected = expected + float(share) * term
    gradients = torch.autograd.grad(
        expected, weights, allow_unused=True, materialize_grads=True, retain_graph=True
    )
    loss = weighted_huber_loss(energies, forces, targets, RECIPE)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)
    ours = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    inputs = update_inputs(batch, weight_targets(targets, RECIPE))
    found, *others = traced(kind)(*WeightList(potential).tensors(), *inputs)
    torch.testing.assert_close(found, loss.detach(), rtol=1e-12, atol=1e-12)
    for theirs, eager, compiled in zip(gradients, ours, others, strict=True):
        torch.testing.assert_close(eager, theirs, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(compiled, theirs, rtol=1e-9, atol=1e-11)


def test_the_validation_loss_is_weighted_too(student: Potential, train: list[Atoms]) -> None:
    plain = finetune(student, train, train[:2], SHORT, seed=0).history[0].valid_loss
    twice = [atoms.copy() for atoms in train[:2]]
    for atoms in twice:
        atoms.info["config_weight"] = 2.0
    found = finetune(student, train, twice, SHORT, seed=0).history[0].valid_loss
    assert plain is not None
    assert found == pytest.approx(2 * plain)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "heavy", True, [1.0, 2.0]])
def test_weights_that_are_no_numbers(student: Potential, value: Any) -> None:
    structures = weighted(1)
    structures[0].info["config_weight"] = value
    with pytest.raises(LabelError, match=r"training structure 0 \(H2O\): info key 'config_weight'"):
        prepare_labelled(student.graph_builder, structures, role="training")


def with_heads(structures: list[Atoms], *heads: str | None) -> list[Atoms]:
    for i, atoms in enumerate(structures):
        if heads[i % len(heads)] is not None:
            atoms.info["head"] = heads[i % len(heads)]
    return structures


def test_structures_of_several_heads_are_refused(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    with pytest.raises(ArgumentError, match=r"training structures name 2 heads.*'a' \(6\), 'b'"):
        finetune(student, with_heads([a.copy() for a in train], "a", "b"), [], SHORT, seed=0)
    with pytest.raises(ArgumentError, match=r"name 2 heads .*'a' \(12\), 'b' \(6\)"):
        one, other = with_heads([a.copy() for a in train], "a"), with_heads(valid, "b")
        finetune(student, one, other, SHORT, seed=0)
    found = finetune(student, with_heads(train, "a", None), [], SHORT, seed=0).messages
    assert "name the head 'a' in their info, which the model does not have" in found[0]
    assert "6 of 12 labelled structures name no head" in found[1]


def test_structures_of_another_head_of_the_model_are_refused(train: list[Atoms]) -> None:
    potential = make_potential(make_mace(seed=0, heads=["a", "b"]), name="two", head="b")
    own = with_heads([a.copy() for a in train], "b")
    assert not any(
        "head" in message for message in finetune(potential, own, [], SHORT, seed=0).messages
    )
    for call in (
        lambda: finetune(potential, with_heads(train, "a"), [], SHORT, seed=0),
        lambda: evaluate(potential, with_heads(train, "a")),
    ):
        with pytest.raises(ArgumentError, match=r"name the head 'a'.* but 'b' of two is in use"):
            call()
