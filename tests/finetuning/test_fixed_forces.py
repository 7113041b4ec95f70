"""Forces of fixed atoms: in errors and loss if they are to count, in neither if not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms

from labelwise.errors import ArgumentError
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.labelled import prepare_labelled
from labelwise.finetuning.loop import mean_huber
from labelwise.finetuning.loss import Targets, collate_targets, weight_targets, weighted_huber_loss
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential
from labelwise.potentials.mace.training.lean_mace import LeanMace
from labelwise.potentials.mace.training.traced import WeightList, update_inputs
from labelwise.structures.fixed_atoms import free_atoms
from tests.finetuning.conftest import NAMES, rattle
from tests.finetuning.test_traced import KINDS, RECIPE, targets_of, traced, trainable

SHORT = Recipe(max_updates=6, batch_size=3, max_validations=2, ema_decay=None)
EXCLUDED = replace(SHORT, loss_fixed_forces="exclude")


@pytest.fixture
def fixed(train: list[Atoms]) -> list[Atoms]:
    """Twelve molecules; every second one has fixed atoms, one of them no free one."""
    for i, atoms in enumerate(train):
        if i == 4:
            atoms.set_constraint(FixAtoms(np.arange(len(atoms))))
        elif i % 2 == 0:
            atoms.set_constraint(FixAtoms([0, 2]))
    return train


def spoilt(structures: list[Atoms]) -> list[Atoms]:
    """Return copies whose fixed atoms have other forces."""
    copies = [atoms.copy() for atoms in structures]
    for atoms in copies:
        atoms.arrays["REF_forces"][~free_atoms(atoms)] += 5.0
    return copies


def test_errors_of_free_atoms(student: Potential, fixed: list[Atoms]) -> None:
    before = [atoms.copy() for atoms in fixed]
    counted = evaluate(student, fixed)
    found = evaluate(student, fixed, fixed_forces="exclude")
    free = np.concatenate([free_atoms(atoms) for atoms in fixed])
    forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in fixed])
    difference = (np.concatenate(found.forces) - forces)[free]
    assert found.errors.n_force_atoms == free.sum() < found.errors.n_atoms == len(free)
    assert found.errors.forces_rmse == pytest.approx(1e3 * np.sqrt(np.square(difference).mean()))
    assert found.errors.forces_mae == pytest.approx(1e3 * np.abs(difference).mean())
    assert found.errors.energy_rmse == counted.errors.energy_rmse
    assert counted.errors.n_force_atoms == len(free)
    assert counted.errors == evaluate(student, [without(a) for a in fixed]).errors
    assert np.array_equal(np.concatenate(found.forces), np.concatenate(counted.forces))
    assert all(a == b for a, b in zip(fixed, before, strict=True))


def without(atoms: Atoms) -> Atoms:
    free = atoms.copy()
    free.set_constraint()
    return free


def test_errors_of_splits_are_those_of_their_structures(
    student: Potential, fixed: list[Atoms]
) -> None:
    names = ["val_id", "val_ood", "val_id"] * 4
    for how in ("count", "exclude"):
        found = evaluate(student, fixed, fixed_forces=how, splits=names)
        assert list(found.split_errors) == ["val_id", "val_ood"]
        for name, errors in found.split_errors.items():
            own = [atoms for atoms, split in zip(fixed, names, strict=True) if split == name]
            alone = evaluate(student, own, fixed_forces=how).errors
            assert errors.n_force_atoms == alone.n_force_atoms
            assert errors.forces_rmse == pytest.approx(alone.forces_rmse, rel=1e-6)
            assert errors.energy_mae == pytest.approx(alone.energy_mae, rel=1e-6)
    with pytest.raises(ArgumentError, match="splits has 2 entries for 12 structures"):
        evaluate(student, fixed, splits=names[:2])


def test_what_is_refused(student: Potential, fixed: list[Atoms]) -> None:
    all_fixed = fixed[4]
    with pytest.raises(ArgumentError, match="fixed_forces is 'zero'; allowed are count, exclude"):
        evaluate(student, fixed, fixed_forces="zero")
    with pytest.raises(ArgumentError, match="loss_fixed_forces is 'zero'"):
        Recipe(loss_fixed_forces="zero")
    with pytest.raises(ArgumentError, match="atoms of the 1 evaluated structures are fixed"):
        evaluate(student, [all_fixed], fixed_forces="exclude")
    splits = ["a"] * 4 + ["b"] + ["a"] * 7
    with pytest.raises(ArgumentError, match="atoms of the 1 'b' structures are fixed"):
        evaluate(student, fixed, fixed_forces="exclude", splits=splits)
    with pytest.raises(ArgumentError, match="1 validation structures are fixed"):
        finetune(student, fixed, [all_fixed], SHORT, seed=0, fixed_forces="exclude")
    with pytest.raises(ArgumentError, match="1 training structures are fixed"):
        finetune(student, [all_fixed], fixed, EXCLUDED, seed=0)


def test_labels_of_fixed_atoms_teach_nothing_when_excluded(
    student: Potential, fixed: list[Atoms]
) -> None:
    """Weights, the best epoch and the recorded losses are the same whatever those labels are."""
    arguments: dict[str, Any] = {"seed": 1, "fixed_forces": "exclude"}
    one = finetune(student, fixed, fixed[:6], EXCLUDED, **arguments)
    other = finetune(student, spoilt(fixed), spoilt(fixed)[:6], EXCLUDED, **arguments)
    assert one.potential.content_hash == other.potential.content_hash
    assert one.potential.content_hash != student.content_hash
    for record, again in zip(one.history, other.history, strict=True):
        assert (record.valid, record.valid_loss) == (again.valid, again.valid_loss)
    counted = finetune(student, spoilt(fixed), spoilt(fixed)[:6], SHORT, seed=1)
    assert counted.potential.content_hash != one.potential.content_hash


def test_errors_and_loss_are_chosen_separately(student: Potential, fixed: list[Atoms]) -> None:
    """The recorded errors leave the weights as they are."""
    counted = finetune(student, fixed, fixed[:6], SHORT, seed=1)
    found = finetune(student, fixed, fixed[:6], SHORT, seed=1, fixed_forces="exclude")
    assert found.potential.content_hash == counted.potential.content_hash
    assert [r.valid_loss for r in found.history] == [r.valid_loss for r in counted.history]
    for record, other in zip(found.history, counted.history, strict=True):
        assert record.valid is not None and other.valid is not None
        assert record.valid.n_force_atoms < other.valid.n_force_atoms
        assert record.valid.forces_rmse != other.valid.forces_rmse


def test_loss_is_the_mean_over_free_components(fixed: list[Atoms]) -> None:
    potential = trainable(0)
    labelled = prepare_labelled(potential.graph_builder, fixed, role="training")
    reference = np.zeros(len(fixed))
    kinds = {"dtype": potential.dtype, "device": potential.device}
    targets = collate_targets(labelled, reference, range(6), **kinds, fixed_forces="exclude")
    assert collate_targets(labelled, reference, range(6), **kinds).free is None
    unfixed = collate_targets(labelled, reference, [1, 3], **kinds, fixed_forces="exclude")
    assert unfixed.free is None  # no structure with fixed atoms: the loss is the usual one
    assert targets.free is not None
    forces = torch.zeros_like(targets.forces)
    recipe = replace(RECIPE, energy_weight=0.0)
    free = np.concatenate([free_atoms(atoms) for atoms in fixed[:6]])
    expected = recipe.forces_weight * mean_huber(targets.forces.numpy()[free], recipe.huber_delta)
    loss = weighted_huber_loss(targets.energies, forces, targets, recipe)
    assert float(loss) == pytest.approx(expected)


def test_a_batch_of_fixed_atoms_alone_has_no_force_loss(fixed: list[Atoms]) -> None:
    potential = trainable(0)
    labelled = prepare_labelled(potential.graph_builder, fixed, role="training")
    kinds = {"dtype": potential.dtype, "device": potential.device}
    targets = collate_targets(labelled, np.zeros(12), [4], **kinds, fixed_forces="exclude")
    forces = torch.zeros_like(targets.forces)
    loss = weighted_huber_loss(targets.energies, forces, targets, RECIPE)
    assert float(loss) == 0.0


@pytest.mark.parametrize("n_free", [0, 1, 5])
def test_the_traced_update_leaves_out_the_same_atoms(n_free: int) -> None:
    kind = "third order"
    potential = trainable(0, **KINDS[kind])
    structures = rattle(NAMES, 3, seed=5)
    network, weights = LeanMace(potential), potential.trained_weights()
    batch = network.collate(network.prepare([potential.prepare(a) for a in structures]))
    whole = targets_of(potential, structures)
    free = torch.zeros(len(whole.forces), dtype=potential.dtype)
    free[:n_free] = 1.0
    targets = Targets(whole.energies, whole.forces, whole.atom_counts, free)
    energies, forces = network.energies_and_forces(batch, training=True)
    loss = weighted_huber_loss(energies, forces, targets, RECIPE)
    expected = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    inputs = update_inputs(batch, weight_targets(targets, RECIPE))
    found, *gradients = traced(kind)(*WeightList(potential).tensors(), *inputs)
    torch.testing.assert_close(found, loss.detach(), rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
