"""Which structures atomic reference energies are fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

from labelwise.finetuning.labelled import LabelledSet, prepare_labelled
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.references import choose_references
from labelwise.potentials import Potential
from labelwise.potentials.mace.potential import MacePotential
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
    found = energies - potential.reference_energies
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


def own_labels(
    potential: Potential, n: int, offsets: dict[int, float], noise: float
) -> list[Atoms]:
    """Structures with the potential's own energies, shifted by element, and an error per atom."""
    rng = np.random.default_rng(3)
    structures = label(rattle(NAMES, n, seed=2), potential, offsets=offsets)
    for atoms in structures:
        atoms.info["REF_energy"] += noise * len(atoms) * rng.normal()
    return structures


def choose(
    potential: Potential, structures: list[Atoms], **arguments: Any
) -> tuple[dict[int, float], str]:
    assert isinstance(potential, MacePotential)
    train, none = prepare(potential, structures, "training"), prepare(potential, [], "validation")
    recipe = Recipe(reference_energies=arguments.pop("reference_energies", "auto"))
    choice = choose_references(potential, train, none, recipe, arguments.get("isolated"))
    return shifts(potential, choice.energies), " ".join((*choice.notes, *choice.messages))


@pytest.mark.parametrize("n", [3, 10, 40])
def test_auto_keeps_what_explains_the_labels(student: Potential, n: int) -> None:
    structures = own_labels(student, n, {}, noise=0.03)
    found, said = choose(student, structures)
    assert max(map(abs, found.values())) < 1e-6
    assert "fitted to the labels" not in said
    fitted, _ = choose(student, structures, reference_energies="refit")
    assert max(map(abs, fitted.values())) > 0.01


def test_auto_says_what_was_compared(student: Potential) -> None:
    _, said = choose(student, own_labels(student, 10, {}, noise=0.12))
    assert "energies of the checkpoint were kept: they leave" in said
    assert "A fit of 3 numbers to its 6 compositions leaves" in said


@pytest.mark.parametrize("n", [3, 10, 40])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_auto_fits_other_levels_of_theory(student: Potential, n: int, scale: float) -> None:
    offsets = {z: scale * shift for z, shift in OFFSETS.items()}
    found, said = choose(student, own_labels(student, n, offsets, noise=0.01))
    if n > 3:
        assert found[6] == pytest.approx(offsets[6], abs=0.5)
        assert found[8] == pytest.approx(offsets[8], abs=0.5)
    assert "were fitted to the labels" in said
    assert "Those of the checkpoint leave" in said


def test_auto_fits_a_small_shift_that_many_compositions_show(student: Potential) -> None:
    structures = own_labels(student, 40, {1: 0.1, 6: 0.1, 8: 0.1}, noise=0.01)
    found, _ = choose(student, structures)
    assert found[6] == pytest.approx(0.1, abs=0.05)


def test_auto_prefers_isolated_atoms_that_explain_the_labels(student: Potential) -> None:
    assert isinstance(student, MacePotential)
    held = dict(zip(student.elements, student.reference_energies.tolist(), strict=True))
    known = {z: held[z] + OFFSETS.get(z, 0.0) for z in held}
    structures = own_labels(student, 10, OFFSETS, noise=0.12)
    found, said = choose(student, structures, isolated=known)
    for z, shift in OFFSETS.items():
        assert found[z] == pytest.approx(shift, abs=1e-4)
    assert "of the isolated atoms were kept" in said
    kept, said = choose(student, own_labels(student, 10, {}, noise=0.12), isolated=known)
    assert max(map(abs, kept.values())) < 1e-4
    assert "of the checkpoint were kept" in said


@pytest.mark.parametrize("mode", ["auto", "refit"])
@pytest.mark.parametrize("offsets", [{}, OFFSETS], ids=["same level", "other level"])
def test_one_wrong_energy_decides_nothing_and_is_named(
    student: Potential, mode: str, offsets: dict[int, float]
) -> None:
    structures = own_labels(student, 40, offsets, noise=0.01)
    expected, _ = choose(student, structures[:7] + structures[8:], reference_energies=mode)
    structures[7].info["REF_energy"] -= 3000.0
    found, said = choose(student, structures, reference_energies=mode)
    assert found == pytest.approx(expected, abs=1e-4)
    assert "1 of 40 labelled energies lies far off" in said
    assert f"training structure 7 ({structures[7].get_chemical_formula()})" in said
    assert "check-data" in said


def test_a_wrong_energy_of_the_only_structure_with_an_element_is_named(student: Potential) -> None:
    """The fit cannot see it: the energy of oxygen explains it all."""
    structures = label(rattle(("CH4", "C2H4"), 9, seed=4), student, offsets={})
    structures += label(rattle(("CH3OH",), 1, seed=5), student, offsets={})
    structures[9].info["REF_energy"] -= 3000.0
    found, said = choose(student, structures)
    assert max(map(abs, found.values())) < 1e-6
    assert "training structure 9" in said


def test_what_is_undetermined_is_bounded_by_numbers(student: Potential) -> None:
    structures = label(rattle(("CH3OH",), 5, seed=6), student, offsets={6: -6000.0})
    assert isinstance(student, MacePotential)
    train = prepare(student, structures, "training")
    valid = label(rattle(("CH4",), 2, seed=7), student, offsets={6: -6000.0})
    held_out = prepare(student, valid, "validation")
    said = " ".join(choose_references(student, train, held_out, Recipe(), None).messages)
    assert "whose energies are 1,000 eV/atom off the labels here" in said
    assert "2 of 2 validation structures" in said
    residual = float(said.split("and are off by ")[1].split(" eV")[0].replace(",", ""))
    # The smallest change that explains CH3OH takes H to -1333, C and O to -333.
    assert residual == pytest.approx(1000 / 3, rel=0.01)
