"""Stress is the derivative by a strain, in every network, in the loss and in the errors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.errors import ArgumentError, LabelError
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.loss import weight_targets, weighted_huber_loss
from labelwise.finetuning.pretraining_set import prepare_pretraining_set
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential
from labelwise.potentials.mace.loading import make_potential
from labelwise.potentials.mace.training.compiled import CACHE_VARIABLE
from labelwise.potentials.mace.training.lean_mace import LeanMace
from labelwise.potentials.mace.training.traced import (
    WeightList,
    prediction_inputs,
    trace_prediction,
    trace_update,
    update_inputs,
)
from labelwise.potentials.training import PlainNetwork
from labelwise.testing.potentials import central_difference
from tests.finetuning.conftest import label, label_targets, make_trainable
from tests.potentials.models import VARIANTS, make_mace

RECIPE = Recipe(batch_size=4, learning_rate=0.01, max_updates=60, max_validations=3)


def crystals(n: int, seed: int = 0) -> list[Atoms]:
    """Return strained and rattled crystals of carbon and oxygen."""
    rng = np.random.default_rng(seed)
    structures = []
    for i in range(n):
        atoms = bulk("CO", "rocksalt", a=3.6, cubic=i % 2 == 1)
        strain = np.eye(3) + rng.normal(scale=0.02, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        structures.append(atoms)
    return structures


def mixed() -> list[Atoms]:
    slab = bulk("C", "diamond", a=3.6, cubic=True)
    slab.pbc = (True, True, False)
    return [*crystals(3), molecule("H2O"), slab, Atoms("O"), *crystals(1, seed=5)]


def with_stress(structures: list[Atoms], teacher: Potential) -> list[Atoms]:
    """Label with a teacher, stress included where the structure is periodic."""
    label(structures, teacher, offsets={})
    for atoms in structures:
        if atoms.pbc.all():
            found = teacher.predict(teacher.collate([teacher.prepare(atoms)]), stress=True)
            assert found.stresses is not None
            atoms.info["REF_stress"] = found.stresses[0].numpy()
    return structures


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in ("scalars", "vectors") else pytest.param(kind, marks=pytest.mark.thorough)
        for kind in VARIANTS
    ],
)
def test_the_stress_is_the_derivative_by_a_strain_and_mace_torchs(kind: str) -> None:
    potential = make_trainable(**VARIANTS[kind])
    potential.model.requires_grad_(False)
    atoms = crystals(2)[1]
    batch = potential.collate([potential.prepare(atoms)])
    found = potential.predict(batch, stress=True)
    assert found.forces is not None
    assert found.stresses is not None
    torch.testing.assert_close(found.forces, potential.predict(batch).forces)
    for place in ((0, 0), (1, 2)):

        def energy(size: float, place: tuple[int, int] = place) -> float:
            strain = np.eye(3)
            strain[place] += size / 2
            strain[place[::-1]] += size / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            one = potential.collate([potential.prepare(moved)])
            return float(potential.predict(one, forces=False).energies)

        slope = central_difference(energy, 1e-5) / atoms.get_volume()
        assert float(found.stresses[0][place]) == pytest.approx(slope, rel=1e-6, abs=1e-8)
    inputs = potential._inputs(batch, None)
    theirs = potential.model(inputs, compute_force=True, compute_stress=True)["stress"]
    torch.testing.assert_close(found.stresses, theirs.detach(), rtol=1e-9, atol=1e-11)


NETWORKS: dict[str, dict[str, Any]] = {
    "lean": {"correlation": 3},
    **{f"frozen {name}": VARIANTS[name] for name in ("vectors", "repulsion", "nonlinear")},
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_fast_networks_equal_plain_differentiation(kind: str) -> None:
    """Energies, forces, stress, loss and its gradient by every weight."""
    potential = make_trainable(**NETWORKS[kind])
    network: Any = potential.training_network()
    assert type(network).__name__ == ("LeanMace" if kind == "lean" else "FrozenMace")
    weights, structures = list(potential.model.parameters()), mixed()
    graphs = [potential.prepare(atoms) for atoms in structures]
    with_stress(structures, make_potential(make_mace(seed=3), name="teacher"))
    _, targets = label_targets(potential, structures)
    recipe = replace(RECIPE, stress_weight=50.0, huber_delta=0.02)
    found = []
    networks: list[Any] = [
        network,
        PlainNetwork(potential.interaction_energies, potential.collate),
    ]
    for each in networks:
        values = each.energies_forces_stresses(each.collate(each.prepare(graphs)), training=True)
        loss = weighted_huber_loss(values[0], values[1], targets, recipe, values[2])
        gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        found.append([*(value.detach() for value in (*values, loss)), *gradients])
    assert float(found[1][2].abs().max()) > 1e-4
    assert torch.equal(found[0][2][3], torch.zeros(3, 3, dtype=torch.float64))  # a molecule
    without = network.energies_and_forces(network.collate(network.prepare(graphs)), training=False)
    assert torch.equal(without[0].detach(), found[0][0])
    for ours, theirs in zip(*found, strict=True):
        scale = float(theirs.abs().max().clamp(min=1e-3))
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * scale)


def test_a_traced_update_with_stress_is_the_loss_and_its_gradient() -> None:
    update = trace_update(make_trainable(seed=1, correlation=3), stress=True)
    predict = trace_prediction(make_trainable(seed=1, correlation=3), stress=True)
    potential = make_trainable(correlation=3)
    network, weights = LeanMace(potential), potential.trained_weights()
    teacher = make_potential(make_mace(seed=3), name="teacher")
    for structures in (mixed(), crystals(1)):
        with_stress(structures, teacher)
        labelled, targets = label_targets(potential, structures)
        batch = network.collate(network.prepare(labelled.graphs))
        energies, forces, stresses = network.energies_forces_stresses(batch, training=True)
        loss = weighted_huber_loss(energies, forces, targets, RECIPE, stresses)
        wanted = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        inputs = update_inputs(batch, weight_targets(targets, RECIPE))
        found, *gradients = update(*WeightList(potential).tensors(), *inputs)
        torch.testing.assert_close(found, loss.detach(), rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
        predicted = predict(*WeightList(potential).tensors(), *prediction_inputs(batch))
        torch.testing.assert_close(predicted[2][: len(structures)], stresses.detach())


def test_the_loss_by_hand(teacher: Potential, student: Potential) -> None:
    """The mean is over the components of the structures that have a stress."""
    structures = with_stress(mixed(), teacher)
    structures[1].info["config_stress_weight"] = 0.5
    del structures[2].info["REF_stress"]
    del structures[5]  # an isolated atom is no sample
    source = require_trainable(student).copy().without_references()
    labelled, targets = label_targets(source, structures)
    assert labelled.has_stress.tolist() == [True, True, False, False, False, True]
    found = source.predict(source.collate(labelled.graphs), stress=True)
    assert found.forces is not None
    assert found.stresses is not None
    loss = weighted_huber_loss(found.energies, found.forces, targets, RECIPE, found.stresses)

    def huber(x: Any) -> Any:
        size = np.abs(np.asarray(x))
        return np.where(size <= 0.01, size**2 / 2, 0.01 * (size - 0.005))

    wanted = 0.0
    energies, stresses = found.energies.numpy(), found.stresses.numpy()
    for atoms, energy in zip(structures, energies, strict=True):
        wanted += 10 * huber((energy - atoms.info["REF_energy"]) / len(atoms)) / len(structures)
    true_forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in structures])
    wanted += 10 * huber(found.forces.numpy() - true_forces).mean()
    terms = [
        weight * huber(stresses[i] - structures[i].info["REF_stress"]).sum()
        for i, weight in ((0, 1.0), (1, 0.5), (5, 1.0))
    ]
    wanted += 100 * sum(terms) / (9 * 3)
    assert sum(terms) > 0
    assert float(loss) == pytest.approx(float(wanted), rel=1e-12)


def test_stress_is_learnt_and_measured(teacher: Potential, student: Potential) -> None:
    train, valid = with_stress(crystals(12), teacher), with_stress(crystals(6, seed=1), teacher)
    for atoms in train[::3]:
        del atoms.info["REF_stress"]
    fitted = finetune(student, train, valid, RECIPE, seed=0)
    assert any("8 of 12 training" in note and "6 of 6 valid" in note for note in fitted.notes)
    first, last = fitted.history[0].valid, fitted.history[-1].valid
    assert first is not None
    assert last is not None
    assert first.n_stresses == last.n_stresses == 6
    measured = evaluate(fitted.potential, valid)
    best = next(each for each in fitted.history if each.epoch == fitted.best_epoch)
    assert best.valid is not None
    assert measured.errors.stress_rmse == pytest.approx(best.valid.stress_rmse, rel=1e-6)
    assert measured.stresses is not None
    errors = measured.stresses - np.stack([atoms.info["REF_stress"] for atoms in valid])
    assert measured.errors.stress_mae == pytest.approx(1000 * np.abs(errors).mean())
    heavy = finetune(student, train, valid, replace(RECIPE, stress_weight=3000.0), seed=0)
    light = finetune(student, train, valid, replace(RECIPE, stress_weight=0.0), seed=0)
    found = [evaluate(each.potential, valid).errors.stress_rmse for each in (heavy, light)]
    assert found[0] is not None
    assert found[1] is not None
    assert first.stress_rmse is not None
    assert found[0] < 0.6 * found[1]
    assert found[0] < 0.5 * first.stress_rmse


def test_structures_may_count_by_their_stress_alone(teacher: Potential, student: Potential) -> None:
    """Their energies and forces are of weight 0; without a stress they are left out."""
    train, valid = with_stress(crystals(8), teacher), with_stress(crystals(4, seed=1), teacher)
    for atoms in (*train, *valid):
        atoms.info |= {"config_energy_weight": 0.0, "config_forces_weight": 0.0}
    del train[-1].info["REF_stress"]
    recipe = replace(RECIPE, reference_energies="checkpoint")
    fitted = finetune(student, train, valid, recipe, seed=0)
    assert "1 have weight 0 and are left out; 7 count by their stress alone" in str(fitted.messages)
    fewer = finetune(student, train[:-1], valid, recipe, seed=0)
    assert fitted.potential.content_hash == fewer.potential.content_hash
    before, after = (evaluate(each, valid).errors for each in (student, fitted.potential))
    assert before.stress_rmse is not None
    assert after.stress_rmse is not None
    assert after.stress_rmse < before.stress_rmse
    with pytest.raises(ArgumentError, match="none is left"):
        finetune(student, train, valid, recipe, seed=0, stress_key=None)


def test_forces_that_vanish_by_symmetry_are_believed_beside_a_stress(
    teacher: Potential, student: Potential
) -> None:
    """Strained elements; without a stress zeros of all structures look like placeholders."""
    train = with_stress([bulk("C", "bcc", a=a, cubic=True) for a in (2.3, 2.4)], teacher)
    for atoms in train:
        atoms.arrays["REF_forces"] = np.zeros((2, 3))
    recipe = replace(RECIPE, max_updates=1)
    assert finetune(student, train, [], recipe, seed=0).n_updates == 1
    del train[0].info["REF_stress"]
    with pytest.raises(LabelError, match="look like placeholders"):
        finetune(student, train, [], recipe, seed=0)


def test_without_weight_stress_labels_change_nothing(
    teacher: Potential, student: Potential
) -> None:
    recipe = replace(RECIPE, max_updates=8, stress_weight=0.0)
    train, valid = with_stress(crystals(6), teacher), with_stress(crystals(4, seed=1), teacher)
    labelled = finetune(student, train, valid, recipe, seed=0)
    unread = finetune(student, train, valid, recipe, seed=0, stress_key=None)
    for atoms in (*train, *valid):
        del atoms.info["REF_stress"]
    bare = finetune(student, train, valid, replace(recipe, stress_weight=100.0), seed=0)
    hashes = {each.potential.content_hash for each in (labelled, unread, bare)}
    assert len(hashes) == 1
    assert not any("tress" in note for note in (*bare.notes, *bare.messages))
    assert bare.history[-1].valid is not None
    assert "stress_rmse" not in bare.history[-1].valid.as_record()


def test_the_validation_loss_counts_stress(teacher: Potential, student: Potential) -> None:
    train, valid = with_stress(crystals(4), teacher), with_stress(mixed()[:4], teacher)
    recipe = replace(RECIPE, max_updates=1, reference_energies="checkpoint")
    with_it, without = (
        finetune(student, train, valid, replace(recipe, stress_weight=weight), seed=0)
        for weight in (100.0, 0.0)
    )
    found = evaluate(student, valid)
    assert found.stresses is not None
    errors = np.abs(np.stack([found.stresses[i] - valid[i].info["REF_stress"] for i in range(3)]))
    huber = np.where(errors <= 0.01, errors**2 / 2, 0.01 * (errors - 0.005)).mean()
    start, bare = with_it.history[0].valid_loss, without.history[0].valid_loss
    assert start is not None
    assert bare is not None
    assert start - bare == pytest.approx(100 * huber, rel=1e-6)


def test_a_key_under_which_nothing_has_a_stress_is_told(
    teacher: Potential, student: Potential
) -> None:
    train = with_stress(crystals(3), teacher)
    recipe = replace(RECIPE, max_updates=1)
    fitted = finetune(student, train, [], recipe, seed=0, stress_key="dft_stress")
    assert "No structure that is periodic in three directions has 'dft_stress'." in fitted.notes


def test_replayed_stress_is_the_model_s_where_its_labels_are(student: Potential) -> None:
    structures = mixed()
    for atoms in structures[:2]:
        atoms.info["REF_virials"] = np.eye(3)  # of whatever level of theory
    structures[4].info["REF_stress"] = np.eye(3)  # a slab
    known = prepare_pretraining_set(student, structures, labels="model")
    assert known.labelled.has_stress.tolist() == [True, True, False, False, False, False]
    for atoms, stress in zip(structures[:2], known.labelled.stresses, strict=False):
        wanted = student.predict(student.collate([student.prepare(atoms)]), stress=True).stresses
        assert wanted is not None
        np.testing.assert_allclose(stress, wanted[0], atol=1e-12)
    errors = known.errors(student)
    assert errors.n_stresses == 2
    assert errors.stress_rmse == pytest.approx(0, abs=1e-6)
    unread = prepare_pretraining_set(student, structures, labels="model", stress_key=None)
    assert unread.content_hash != known.content_hash


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_updates_with_stress_train_the_same_weights(
    teacher: Potential, student: Potential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    train, valid = with_stress(crystals(6), teacher), with_stress(crystals(3, seed=1), teacher)
    recipe = replace(RECIPE, max_updates=6, max_validations=1)
    fitted = [
        finetune(student, train, valid, replace(recipe, compiled=compiled), seed=0)
        for compiled in (True, False)
    ]
    assert {path.name.rpartition("-")[0] for path in tmp_path.iterdir()} == {
        "stress-prediction",
        "stress-update",
    }
    ours, theirs = (require_trainable(each.potential).model.state_dict() for each in fitted)
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-7, atol=1e-9)
    for a, b in zip(fitted[0].history, fitted[1].history, strict=True):
        assert a.valid is not None
        assert b.valid is not None
        assert a.valid_loss == pytest.approx(b.valid_loss, rel=1e-8)
        assert a.valid.stress_rmse == pytest.approx(b.valid.stress_rmse, rel=1e-8)
