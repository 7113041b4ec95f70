"""What is told of labels before anything is fitted to them."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, Hartree

from labelwise.errors import LabelError
from labelwise.finetuning.evaluation import evaluate, suspect_labels
from labelwise.finetuning.labelled import prepare_labelled
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential
from labelwise.potentials.mace.potential import MacePotential
from tests.finetuning.conftest import NAMES, label, rattle


@pytest.fixture
def own(student: Potential) -> list[Atoms]:
    """Structures that the student labelled itself."""
    return label(rattle(NAMES, 24, seed=3), student, offsets={})


def tell(student: Potential, structures: list[Atoms]) -> tuple[str, ...]:
    assert isinstance(student, MacePotential)
    labelled = prepare_labelled(student.graph_builder, structures, role="training")
    return suspect_labels(student, labelled, None)


def test_right_labels_need_no_word(student: Potential, own: list[Atoms]) -> None:
    assert tell(student, own) == ()


@pytest.mark.parametrize(
    ("factor", "word"), [(-1.0, "gradients"), (Bohr / Hartree, "hartree/bohr")]
)
def test_wrong_forces_are_told(
    student: Potential, own: list[Atoms], factor: float, word: str
) -> None:
    for atoms in own:
        atoms.arrays["REF_forces"] *= factor
    (message,) = tell(student, own)
    assert word in message and "training structure 0" in message


def test_energies_in_hartree_are_told_whatever_their_core(
    student: Potential, own: list[Atoms]
) -> None:
    for atoms in own:
        atoms.info["REF_energy"] = atoms.info["REF_energy"] / Hartree - 2.0 * len(atoms)
    (message,) = tell(student, own)
    assert "as if in hartree" in message


def test_many_structures_are_sampled(student: Potential, own: list[Atoms]) -> None:
    many = [atoms.copy() for atoms in own * 10]
    for atoms in many:
        atoms.arrays["REF_forces"] = -atoms.arrays["REF_forces"]
    (message,) = tell(student, many)
    assert "of 100 of 100 structures" in message


def test_a_fit_tells_gradients_and_unconverged_ones(student: Potential, own: list[Atoms]) -> None:
    own[4].info["converged"] = np.False_
    for atoms in own:
        atoms.arrays["REF_forces"] *= -1.0
    fitted = finetune(student, own, [], Recipe(schedule="fixed", max_updates=1), seed=0)
    told = " ".join(fitted.messages)
    assert "gradients" in told and "1 of 24 structures say" in told


def test_total_energies_in_hartree_are_refused(student: Potential) -> None:
    molecules = rattle(("CH4", "H2O", "CH3OH"), 6, seed=0)
    for atoms, energy in zip(molecules, 2 * [-40.52, -76.42, -115.72], strict=True):
        atoms.info["REF_energy"] = energy
        atoms.arrays["REF_forces"] = np.ones((len(atoms), 3))
    with pytest.raises(LabelError, match=r"of 6 of 6 training structures .* in hartree"):
        finetune(student, molecules, [], Recipe(), seed=0)
    with pytest.raises(LabelError, match=r"of 6 of 6 evaluated structures .* in hartree"):
        evaluate(student, molecules)


def test_held_out_labels_are_looked_at_too(student: Potential, own: list[Atoms]) -> None:
    train, held_out = own[:12], own[12:]
    held_out[3].info["REF_energy"] -= 3000.0
    held_out[4].info["converged"] = False
    for atoms in held_out:
        atoms.arrays["REF_forces"] *= -1.0
    short = Recipe(schedule="fixed", max_updates=1)
    fitted = finetune(student, train, held_out, short, seed=0)
    measured = evaluate(fitted.potential, held_out, sources=[f"test@{i}" for i in range(12)])
    for messages, name in ((fitted.messages, "validation structure"), (measured.messages, "test@")):
        unconverged, reversed_forces, far = messages
        assert "1 of 12 structures say" in unconverged
        assert "12 of 12 structures" in reversed_forces and "gradients" in reversed_forces
        assert "1 of 12 labelled energies is far from the model's" in far
        assert name in far and "-500 eV/atom" in far
    assert evaluate(student, train).messages == ()
    for atoms in train:
        atoms.info["REF_energy"] -= 5.0 * len(atoms)
    (message,) = evaluate(student, train).messages
    assert "12 labelled energies are typically 5 eV/atom from the model's" in message


@pytest.mark.parametrize("mode", ["checkpoint", "isolated", "given"])
def test_reference_energies_that_do_not_fit_are_told(
    student: Potential, own: list[Atoms], mode: str
) -> None:
    references = require_trainable(student).reference_energies
    own_energies = dict(zip(student.elements, references.tolist(), strict=True))
    recipe = Recipe(
        schedule="fixed",
        max_updates=1,
        reference_energies=mode,
        given_energies=own_energies if mode == "given" else {},
    )
    for atoms in own:
        atoms.info["REF_energy"] -= 5.0 * len(atoms)
    shift = -5.0 if mode == "isolated" else 0.0
    isolated = {z: energy + shift for z, energy in own_energies.items()}
    messages = finetune(student, own, [], recipe, seed=0, isolated_atoms=isolated).messages
    told = [message for message in messages if f"asked for ({mode}) leave 5" in message]
    assert len(told) == (0 if mode == "isolated" else 1)
