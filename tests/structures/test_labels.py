from __future__ import annotations

import io

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write

from labelwise.errors import LabelError
from labelwise.structures import get_labels
from labelwise.structures.labels import choose_keys, get_energy, say_keys


@pytest.fixture
def labelled(water: Atoms) -> Atoms:
    water.info["REF_energy"] = -5.0
    water.arrays["REF_forces"] = np.arange(9.0).reshape(3, 3)
    return water


def test_the_field_s_keys(labelled: Atoms) -> None:
    labels = get_labels(labelled, "a@0")
    assert labels.energy == -5.0
    assert np.array_equal(labels.forces, labelled.arrays["REF_forces"])


def test_keys_that_ase_moves_into_a_calculator(water: Atoms) -> None:
    forces = np.ones((3, 3))
    water.calc = SinglePointCalculator(water, energy=-1.0, forces=forces)
    text = io.StringIO()
    write(text, water, format="extxyz")
    text.seek(0)
    atoms = read(text, format="extxyz")
    assert "energy" not in atoms.info
    labels = get_labels(atoms, "a@0", energy_key="energy", forces_key="forces")
    assert labels.energy == -1.0
    assert np.array_equal(labels.forces, forces)


def test_constraints_do_not_zero_forces(water: Atoms) -> None:
    water.calc = SinglePointCalculator(water, energy=-1.0, forces=np.ones((3, 3)))
    water.set_constraint(FixAtoms([0, 1]))
    labels = get_labels(water, "a@0", energy_key="energy", forces_key="forces")
    assert np.array_equal(labels.forces, np.ones((3, 3)))


def test_missing_key_names_place_and_what_is_there(labelled: Atoms) -> None:
    with pytest.raises(LabelError, match=r"^data\.xyz@4: label 'dft' is missing; .*REF_energy"):
        get_labels(labelled, "data.xyz@4", energy_key="dft")
    del labelled.arrays["REF_forces"]
    with pytest.raises(LabelError, match="'REF_forces' is missing"):
        get_labels(labelled, "a@0")


@pytest.mark.parametrize("value", [np.nan, np.inf, "high", [1.0, 2.0], None])
def test_energies_that_are_none(labelled: Atoms, value: object) -> None:
    labelled.info["REF_energy"] = value
    with pytest.raises(LabelError, match="REF_energy"):
        get_labels(labelled, "a@0")


@pytest.mark.parametrize(
    "value",
    [
        True,
        np.True_,
        np.array([True]),
        np.array([True], dtype=object),
        "T",
        "-137.9",
        b"-1.5",
        1 + 0j,
        np.array([1 + 0j]),
        10**400,
        np.datetime64("2020"),
        np.ma.masked,
        {},
    ],
)
def test_what_is_no_real_number_is_no_energy(labelled: Atoms, value: object) -> None:
    labelled.info["REF_energy"] = value
    with pytest.raises(LabelError, match="'REF_energy' is no number"):
        get_labels(labelled, "a@0")


@pytest.mark.parametrize("value", [-5, np.float32(-5), np.array([[-5.0]]), np.int8(-5)])
def test_real_numbers_of_any_kind_are(labelled: Atoms, value: object) -> None:
    labelled.info["REF_energy"] = value
    assert get_labels(labelled, "a@0").energy == -5.0


@pytest.mark.parametrize("kind", ["bool", "str", "complex"])
def test_what_is_no_real_number_is_no_force(labelled: Atoms, kind: str) -> None:
    labelled.arrays["REF_forces"] = np.ones((3, 3)).astype(kind)
    with pytest.raises(LabelError, match="'REF_forces' is no number"):
        get_labels(labelled, "a@0")


def test_truth_written_in_a_file_is_no_energy() -> None:
    text = "1\nProperties=species:S:1:pos:R:3 REF_energy=T\nH 0 0 0\n"
    with pytest.raises(LabelError, match="'REF_energy' is no number"):
        get_energy(read(io.StringIO(text), format="extxyz"), "a@0")


def test_keys_are_ase_s_own_only_where_the_default_ones_are_nowhere(labelled: Atoms) -> None:
    plain = Atoms("H")
    plain.calc = SinglePointCalculator(plain, energy=-1.0, forces=np.ones((1, 3)))
    defaults = ("REF_energy", "REF_forces")
    assert choose_keys([plain, plain], *defaults) == ("energy", "forces")
    assert choose_keys([plain, labelled], *defaults) == defaults
    assert choose_keys([plain], "dft_energy", "dft_forces") is None
    assert choose_keys([Atoms("H")], *defaults) is None
    labelled.info["dft"] = -2.0
    assert "numbers: REF_energy, dft" in say_keys([labelled])
    assert "vectors of atoms: REF_forces" in say_keys([labelled])


def test_forces_of_the_wrong_shape(labelled: Atoms) -> None:
    del labelled.arrays["REF_forces"]
    labelled.arrays["REF_forces"] = np.zeros((3, 2))
    with pytest.raises(LabelError, match=r"shape \(3, 2\), expected \(3, 3\)"):
        get_labels(labelled, "a@0")
