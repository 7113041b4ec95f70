from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write

from labelwise.errors import LabelError
from labelwise.structures import get_labels, write_structures
from labelwise.structures.labels import choose_keys, get_energy, get_stress, say_keys, set_stress


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


STRESS = np.array([[0.01, 0.002, -0.003], [0.002, 0.02, 0.004], [-0.003, 0.004, -0.03]])


def read_stress(atoms: Atoms, *key: str) -> np.ndarray:
    found = get_stress(atoms, "here", *key)
    assert found is not None
    return found


def _crystal() -> Atoms:
    return Atoms("Cu2", positions=[[0, 0, 0], [1.8, 1.8, 0]], cell=[3.6, 3.6, 4.0], pbc=True)


@pytest.mark.parametrize(
    "value",
    [
        STRESS,
        STRESS.reshape(9),
        STRESS.tolist(),
        np.array([0.01, 0.02, -0.03, 0.004, -0.003, 0.002]),
    ],
)
def test_a_stress_is_nine_numbers_or_six(value: object) -> None:
    atoms = _crystal()
    assert get_stress(atoms, "here") is None
    atoms.info["REF_stress"] = value
    np.testing.assert_allclose(read_stress(atoms), STRESS, atol=1e-15)
    atoms.info["dft"] = atoms.info.pop("REF_stress")
    np.testing.assert_allclose(read_stress(atoms, "dft"), STRESS, atol=1e-15)


def test_virials_are_minus_volume_times_stress() -> None:
    atoms = _crystal()
    atoms.info["REF_virials"] = -STRESS * atoms.get_volume()
    np.testing.assert_allclose(read_stress(atoms), STRESS, atol=1e-15)
    atoms.info["REF_stress"] = 2 * STRESS
    np.testing.assert_allclose(read_stress(atoms), 2 * STRESS)
    np.testing.assert_allclose(read_stress(atoms, "REF_virials"), STRESS, atol=1e-15)
    set_stress(atoms, STRESS, "my_virial")
    np.testing.assert_allclose(atoms.info["my_virial"], atoms.info["REF_virials"].ravel())


def test_a_stress_is_written_as_nine_numbers(tmp_path: Path) -> None:
    atoms = _crystal()
    set_stress(atoms, STRESS)
    write_structures(tmp_path / "crystal.extxyz", [atoms])
    assert "_JSON" not in (tmp_path / "crystal.extxyz").read_text()
    found = read(tmp_path / "crystal.extxyz")
    np.testing.assert_allclose(np.reshape(found.info["REF_stress"], (3, 3)), STRESS, rtol=1e-12)
    np.testing.assert_allclose(read_stress(found), STRESS, rtol=1e-12)


def test_the_sign_and_order_of_virials_and_stress_are_ases() -> None:
    atoms = _crystal()
    atoms.calc = EMT()
    atoms.info["REF_stress"] = atoms.get_stress()
    found = read_stress(atoms)
    np.testing.assert_allclose(found, atoms.get_stress(voigt=False), atol=1e-12)
    larger = atoms.copy()
    larger.set_cell(atoms.cell.array * (1 + 1e-5), scale_atoms=True)
    larger.calc = EMT()
    slope = (larger.get_potential_energy() - atoms.get_potential_energy()) / 1e-5
    assert np.trace(found) * atoms.get_volume() == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros(5), "has shape"),
        (np.zeros((3, 2)), "has shape"),
        (np.full((3, 3), np.nan), "not finite"),
        (np.zeros((3, 3)), "exactly zero"),
        (np.array([[1.0, 0.5, 0], [0.1, 1, 0], [0, 0, 1]]), "not symmetric"),
        ("text", "no number"),
    ],
)
def test_a_stress_that_is_none_is_refused(value: object, words: str) -> None:
    atoms = _crystal()
    atoms.info["REF_stress"] = value
    with pytest.raises(LabelError, match=f"here: label 'REF_stress'.*{words}"):
        get_stress(atoms, "here")
    atoms.pbc = (True, True, False)  # then there is no stress
    assert get_stress(atoms, "here") is None
