"""Structures with energies alone or forces alone: refused unless asked for, then exactly used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms

from labelwise.errors import LabelError
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.labelled import prepare_labelled
from labelwise.finetuning.loss import collate_targets, weighted_huber_loss
from labelwise.finetuning.metrics import root_mean_square
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential

RECIPE = Recipe(batch_size=3, learning_rate=0.01, max_updates=40, max_validations=2)


def strip(structures: list[Atoms]) -> list[Atoms]:
    """Leave every third structure without forces, and the one after it without an energy."""
    for i, atoms in enumerate(structures):
        if i % 3 == 0:
            del atoms.arrays["REF_forces"]
        elif i % 3 == 1:
            del atoms.info["REF_energy"]
    return structures


def test_missing_labels_are_no_weights_of_structures(
    student: Potential, train: list[Atoms]
) -> None:
    fitted = finetune(student, strip(train), [], RECIPE, seed=0, partial_labels=True)
    assert not [text for text in fitted.messages if "config_weight" in text]


def test_known_reference_energies_are_taken_where_no_energies_are(
    student: Potential, train: list[Atoms]
) -> None:
    for atoms in train:
        del atoms.info["REF_energy"]
    given = {1: -1.0, 6: -2.0, 8: -3.0}
    recipe = replace(RECIPE, reference_energies="given", given_energies=given)
    fitted = finetune(student, train, [], recipe, seed=0, partial_labels=True)
    assert fitted.reference_energies == pytest.approx({"H": -1.0, "C": -2.0, "O": -3.0})


def test_energies_alone_have_no_forces_of_fixed_atoms(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    for atoms in valid:
        del atoms.arrays["REF_forces"]
    options = {"partial_labels": True, "fixed_forces": "exclude"}
    fitted = finetune(student, train, valid, RECIPE, seed=0, **options)
    assert fitted.history[0].valid is not None


def test_a_missing_label_is_refused_unless_asked_for(
    student: Potential, train: list[Atoms]
) -> None:
    with pytest.raises(LabelError, match="label 'REF_forces' is missing"):
        finetune(student, strip(train), [], RECIPE, seed=0)
    bare = train[0].copy()
    bare.info.clear()
    with pytest.raises(LabelError, match="label 'REF_energy' is missing"):
        finetune(student, [bare], [], RECIPE, seed=0, partial_labels=True)


def test_the_loss_is_that_of_what_is_there(student: Potential, train: list[Atoms]) -> None:
    """By hand: a term that is missing is 0, and the number that the mean divides by stays."""
    source = require_trainable(student).copy().without_references()
    labelled = prepare_labelled(
        source.graph_builder, strip(train), role="training", partial_labels=True
    )
    assert labelled.has_forces.tolist() == [i % 3 != 0 for i in range(12)]
    assert labelled.has_energy.tolist() == [i % 3 != 1 for i in range(12)]
    targets = collate_targets(
        labelled, np.zeros(12), range(12), dtype=torch.float64, device=source.device
    )
    found = source.predict(source.collate(labelled.graphs))
    assert found.forces is not None
    loss = weighted_huber_loss(found.energies, found.forces, targets, RECIPE)

    def huber(x: np.ndarray) -> float:
        size = np.abs(x)
        return float(np.where(size <= 0.01, size**2 / 2, 0.01 * (size - 0.005)).sum())

    n_atoms = [len(atoms) for atoms in train]
    forces = np.split(found.forces.numpy(), np.cumsum(n_atoms)[:-1])
    energy = sum(
        huber(np.array((float(found.energies[i]) - atoms.info["REF_energy"]) / len(atoms)))
        for i, atoms in enumerate(train)
        if i % 3 != 1
    )
    force = sum(
        huber(forces[i] - atoms.arrays["REF_forces"]) for i, atoms in enumerate(train) if i % 3 != 0
    )
    wanted = 10 * energy / 12 + 10 * force / (3 * sum(n_atoms))
    assert float(loss) == pytest.approx(wanted, rel=1e-12)


def test_errors_are_of_what_is_there(student: Potential, valid: list[Atoms]) -> None:
    whole = evaluate(student, valid)
    kept = [atoms.copy() for atoms in valid]
    strip(valid)
    found = evaluate(student, valid, partial_labels=True)
    np.testing.assert_array_equal(found.energies, whole.energies)
    energy = [whole.energies[i] - kept[i].info["REF_energy"] for i in range(6) if i % 3 != 1]
    force = [whole.forces[i] - kept[i].arrays["REF_forces"] for i in range(6) if i % 3 != 0]
    assert found.errors.energy_rmse == pytest.approx(1000 * root_mean_square(energy))
    joined = np.concatenate(force)
    assert found.errors.forces_rmse == pytest.approx(1000 * root_mean_square(joined))
    assert found.errors.n_force_atoms == len(joined)
    for atoms in valid:
        atoms.info.pop("REF_energy", None)
    forces_only = [atoms for atoms in valid if "REF_forces" in atoms.arrays]
    assert np.isnan(evaluate(student, forces_only, partial_labels=True).errors.energy_rmse)


def test_partial_sets_are_fitted_and_told(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    whole = [atoms.copy() for atoms in valid]
    fitted = finetune(student, strip(train), strip(valid), RECIPE, seed=0, partial_labels=True)
    assert any("4 of 12 training structures have no energy" in note for note in fitted.notes)
    first, last = fitted.history[0].valid, fitted.history[-1].valid
    assert first is not None
    assert last is not None
    assert last.forces_rmse < first.forces_rmse
    # Reference energies of thousands of eV were found from the structures that have energies.
    assert evaluate(fitted.potential, whole).errors.energy_rmse_per_atom < 500


def test_forces_alone_keep_the_reference_energies(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    for atoms in (*train, *valid):
        del atoms.info["REF_energy"]
    recipe = replace(RECIPE, max_updates=6)
    fitted = finetune(student, train, valid, recipe, seed=0, partial_labels=True)
    before = require_trainable(student).reference_energies
    after = require_trainable(fitted.potential).reference_energies
    np.testing.assert_array_equal(after, before)
    assert fitted.potential.content_hash != student.content_hash
    (note,) = [text for text in fitted.notes if "checkpoint" in text]
    assert "(auto) are fitted to the energies of the training set, which has none" in note


def test_reference_energies_may_be_those_of_the_validation_set_alone(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    for atoms in train:
        del atoms.info["REF_energy"]
    recipe = replace(RECIPE, max_updates=1, reference_energies="labelled")
    fitted = finetune(student, train, valid, recipe, seed=0, partial_labels=True)
    wanted = finetune(student, valid, [], replace(recipe, reference_energies="refit"), seed=0)
    assert fitted.reference_energies == wanted.reference_energies
