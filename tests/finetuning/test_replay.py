"""What is replayed counts as said, and what a model knew is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from labelwise.errors import ArgumentError, LabelError
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.pretraining_set import PretrainingSet, prepare_pretraining_set
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import FineTuned, finetune
from labelwise.potentials import Potential, TorchPotential, load_potential
from labelwise.structures import Source
from tests.finetuning.conftest import rattle

ONE = Recipe(batch_size=3, learning_rate=0.01, max_updates=1, max_validations=1)
SEVERAL = replace(ONE, max_updates=7)


@pytest.fixture
def known(student: Potential) -> PretrainingSet:
    return prepare_pretraining_set(student, rattle(("C2H2", "H2O"), 5, seed=9), labels="model")


def weights_of(fitted: FineTuned) -> list[torch.Tensor]:
    return list(fitted.potential.model.parameters())  # type: ignore[attr-defined]


def huber(difference: np.ndarray, delta: float) -> float:
    size = np.abs(difference)
    return float(np.where(size < delta, size**2 / 2, delta * (size - delta / 2)).mean())


def test_the_model_labels_what_it_knows(student: Potential, known: PretrainingSet) -> None:
    errors = known.errors(student)
    assert errors.energy_rmse < 1e-3
    assert errors.forces_rmse < 1e-3
    assert known.labelled.n_structures == 5
    assert known.messages == ()


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_the_loss_is_that_by_hand(
    student: Potential, teacher: Potential, train: list[Atoms], weight: float
) -> None:
    """All structures of both sets are in one update, so that their order does not matter."""
    old = rattle(("C2H2", "H2O"), 3, seed=9)
    for atoms in old:
        energies, forces = predict(teacher, atoms)
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energies + 0.4, 1.1 * forces
    recipe = replace(ONE, replay_weight=weight, reference_energies="checkpoint", huber_delta=0.05)
    fitted = finetune(
        student, train[:3], [], recipe, seed=0, replay=prepare_pretraining_set(student, old)
    )
    expected = 0.0
    for structures, share in ((train[:3], 1.0), (old, weight)):
        found = [predict(student, atoms) for atoms in structures]
        energy = [
            (e - atoms.info["REF_energy"]) / len(atoms)
            for (e, _), atoms in zip(found, structures, strict=True)
        ]
        force = [
            f - atoms.arrays["REF_forces"] for (_, f), atoms in zip(found, structures, strict=True)
        ]
        expected += share * 10.0 * huber(np.array(energy), 0.05)
        expected += share * 10.0 * huber(np.concatenate(force), 0.05)
    assert fitted.history[-1].train_loss == pytest.approx(expected, rel=1e-9)


def predict(potential: Potential, atoms: Atoms) -> tuple[float, np.ndarray]:
    found = potential.predict(potential.collate([potential.prepare(atoms)]))
    assert found.forces is not None
    return float(found.energies), found.forces.numpy()


def test_a_set_twice_is_twice_its_weight(student: Potential, train: list[Atoms]) -> None:
    recipe = replace(ONE, reference_energies="checkpoint", clip_norm=None)
    doubled = replace(recipe, energy_weight=20.0, forces_weight=20.0)
    once = finetune(student, train[:3], [], doubled, seed=0)
    again = prepare_pretraining_set(student, train[:3])
    twice = finetune(student, train[:3], [], recipe, seed=0, replay=again)
    for a, b in zip(weights_of(once), weights_of(twice), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_reference_energies_of_the_new_labels_do_not_touch_the_old(
    student: Potential, train: list[Atoms], known: PretrainingSet
) -> None:
    """The training labels are tens of eV an atom away; what is replayed stays where it was."""
    recipe = replace(SEVERAL, reference_energies="refit")
    fitted = finetune(student, train, [], recipe, seed=0, replay=known, retain=known)
    assert fitted.retained is not None
    assert fitted.retained.before.energy_rmse < 1e-3
    assert fitted.retained.after.energy_rmse < 300
    losses = [each.train_loss for each in fitted.history if each.train_loss is not None]
    assert max(losses) < 0.5


def test_replaying_retains(student: Potential, train: list[Atoms], valid: list[Atoms]) -> None:
    old = rattle(("C2H2", "CH4", "H2O"), 12, seed=3)
    replay = prepare_pretraining_set(student, old[:9], labels="model")
    retain = prepare_pretraining_set(student, old[9:], labels="model", role="retained")
    recipe = Recipe(batch_size=4, learning_rate=0.02, max_updates=60)
    without = finetune(student, train, valid, recipe, seed=0, retain=retain)
    assert without.retained is not None
    kept = finetune(student, train, valid, recipe, seed=0, replay=replay, retain=retain)
    assert kept.retained is not None
    assert kept.retained.after.forces_rmse < 0.6 * without.retained.after.forces_rmse
    assert kept.retained.after == retain.errors(kept.potential)
    first, best = (evaluate(each, valid).errors for each in (student, kept.potential))
    assert best.forces_rmse < 0.7 * first.forces_rmse


def test_no_weight_is_no_replay(
    student: Potential, train: list[Atoms], known: PretrainingSet
) -> None:
    plain = finetune(student, train, [], SEVERAL, seed=0)
    nothing = finetune(
        student, train, [], replace(SEVERAL, replay_weight=0.0), seed=0, replay=known
    )
    some = [finetune(student, train, [], SEVERAL, seed=0, replay=known) for _ in range(2)]
    for a, b, c, d in zip(*(weights_of(each) for each in (plain, nothing, *some)), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(c, d)
    assert plain.potential.content_hash != some[0].potential.content_hash


def test_the_updates_that_know_frozen_geometry_give_the_same(train: list[Atoms]) -> None:
    """The shipped model's updates take loss and gradients in one piece; others do not."""
    shipped = load_potential("demo", dtype="float64")
    assert isinstance(shipped, TorchPotential)
    old = prepare_pretraining_set(shipped, rattle(("C2H2", "H2O"), 5, seed=9), labels="model")
    recipe = replace(SEVERAL, learning_rate=1e-3)
    quick = finetune(shipped, train, [], recipe, seed=0, replay=old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(shipped), "training_network", TorchPotential.training_network)
        slow = finetune(shipped, train, [], recipe, seed=0, replay=old)
    for a, b in zip(weights_of(quick), weights_of(slow), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_labels_of_another_level_are_told(student: Potential) -> None:
    old = rattle(("C2H2", "H2O"), 12, seed=9)
    for atoms in old:
        energy, forces = predict(student, atoms)
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energy, -forces
    known = prepare_pretraining_set(student, old)
    assert any("gradients" in message for message in known.messages)


@pytest.mark.parametrize(
    ("structures", "labels", "kind", "message"),
    [
        ([Atoms("H")], "model", ArgumentError, "more than an isolated atom"),
        (rattle(("C2H2",), 1, seed=0), "file", LabelError, "REF_energy"),
        (rattle(("C2H2",), 1, seed=0), "modle", ArgumentError, "model"),
    ],
)
def test_what_cannot_be_replayed(
    student: Potential, structures: list[Atoms], labels: str, kind: type, message: str
) -> None:
    sources = [Source("old.extxyz", 0)]
    with pytest.raises(kind, match=message):
        prepare_pretraining_set(student, structures, labels=labels, sources=sources)


def test_what_is_retained_must_not_be_taught(student: Potential, known: PretrainingSet) -> None:
    others = rattle(("C2H2", "H2O"), 5, seed=10)
    apart = prepare_pretraining_set(student, others, labels="model", role="retained")
    apart.require_unseen(rattle(("CH4",), 2, seed=0), known)
    with pytest.raises(ArgumentError, match=r"5 structures are retained, .*retained structure 0"):
        apart.require_unseen(others)
    with pytest.raises(ArgumentError, match="5 structures are retained"):
        known.require_unseen([], known)


def test_weights_of_structures_are_part_of_the_hash(student: Potential) -> None:
    structures = [*rattle(("C2H2", "H2O"), 2, seed=9), bulk("CO", "rocksalt", a=3.6, cubic=True)]
    structures[2].info["REF_stress"] = np.eye(3)

    def hash_now() -> str:
        keys = {"labels": "model", "stress_key": "REF_stress"}
        return prepare_pretraining_set(student, structures, **keys).content_hash

    one = hash_now()
    assert hash_now() == one
    structures[1].info["config_weight"] = 0.5
    other = hash_now()
    assert other != one
    structures[2].info["config_stress_weight"] = 7.0
    assert hash_now() != other


def test_another_model_knows_nothing_of_it(student: Potential, known: PretrainingSet) -> None:
    with pytest.raises(ArgumentError, match="other elements"):
        known.errors(load_potential("demo"))
    with pytest.raises(ArgumentError, match="other elements"):
        finetune(load_potential("demo"), rattle(("H2O",), 2, seed=0), [], ONE, seed=0, replay=known)


def test_new_weights_replay_nothing(
    student: Potential, train: list[Atoms], known: PretrainingSet
) -> None:
    with pytest.raises(ArgumentError, match="new weights"):
        finetune(student, train, [], replace(ONE, start="scratch"), seed=0, replay=known)
