"""Which structures atomic reference energies are fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from labelwise.finetuning.labelled import LabelledSet, prepare_labelled
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.references import choose_references
from labelwise.finetuning.trainable import get_reference_energies
from labelwise.potentials import Potential
from labelwise.potentials.mace import MacePotential
from tests.finetuning.conftest import NAMES, OFFSETS, label, rattle


def prepare(potential: Potential, structures: list[Atoms], role: str) -> LabelledSet:
    return prepare_labelled(
        potential.graph_builder,
        structures,
        role=role,
        energy_key="REF_energy",
        forces_key="REF_forces",
    )


@pytest.fixture
def sets(student: Potential) -> tuple[LabelledSet, LabelledSet]:
    """Water alone to train on, and molecules of every kind to validate with.

    The student's own energies, shifted by composition: only references are to be learnt.
    """
    train = label(rattle(("H2O",), 6, seed=0), student, offsets=OFFSETS)
    valid = label(rattle(NAMES, 12, seed=1), student, offsets=OFFSETS)
    return prepare(student, train, "training"), prepare(student, valid, "validation")


def shifts(potential: Potential, energies: np.ndarray) -> dict[int, float]:
    assert isinstance(potential, MacePotential)
    found = energies - get_reference_energies(potential)
    return dict(zip(potential.elements, found.tolist(), strict=True))


def test_labelled_takes_what_the_training_set_leaves_open_from_the_validation_set(
    student: Potential, sets: tuple[LabelledSet, LabelledSet]
) -> None:
    assert isinstance(student, MacePotential)
    recipe = Recipe(reference_energies="labelled")
    choice = choose_references(student, *sets, recipe, None)
    found = shifts(student, choice.energies)
    for number, offset in OFFSETS.items():
        assert found[number] == pytest.approx(offset, abs=0.02)
    assert not any("do not determine" in message for message in choice.messages)


def test_refit_does_not_look_at_the_validation_set(
    student: Potential, sets: tuple[LabelledSet, LabelledSet]
) -> None:
    assert isinstance(student, MacePotential)
    train, valid = sets
    chosen = choose_references(student, train, valid, Recipe(), None)
    found = shifts(student, chosen.energies)
    assert found[6] == pytest.approx(0.0, abs=1e-6)  # no carbon in the training set
    assert 2 * found[1] + found[8] == pytest.approx(2 * OFFSETS[1] + OFFSETS[8], abs=0.05)
    other = choose_references(student, train, train, Recipe(), None)
    np.testing.assert_array_equal(chosen.energies, other.energies)


def test_labelled_without_a_validation_set_is_refit(
    student: Potential, sets: tuple[LabelledSet, LabelledSet]
) -> None:
    assert isinstance(student, MacePotential)
    train, _ = sets
    none = prepare(student, [], "validation")
    labelled = choose_references(student, train, none, Recipe(reference_energies="labelled"), None)
    refit = choose_references(student, train, none, Recipe(reference_energies="refit"), None)
    np.testing.assert_array_equal(labelled.energies, refit.energies)
