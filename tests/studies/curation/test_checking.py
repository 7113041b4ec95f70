from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Hartree

from labelwise.errors import ArgumentError, LabelError, ScreeningError
from labelwise.potentials import Potential
from labelwise.potentials.batching import predict_structures
from labelwise.structures import Frame, Source
from labelwise.studies.curation.checking import check_data
from labelwise.studies.curation.data_set import DataSet, load_data_set, make_kernel
from labelwise.studies.curation.settings import CheckSettings

ENERGIES = {1: -13.0, 6: -1030.0, 7: -1480.0, 8: -2040.0}


def as_frames(structures: Sequence[Atoms]) -> list[Frame]:
    return [Frame(atoms, Source("set.xyz", i), i) for i, atoms in enumerate(structures)]


@pytest.fixture
def structures(rattled_molecules: list[Atoms], rng: np.random.Generator) -> list[Atoms]:
    """Labelled structures, 30 to 32 of them copies: equal, rotated and re-ordered."""
    for atoms in rattled_molecules:
        energy = sum(ENERGIES[int(z)] for z in atoms.numbers)
        atoms.info["REF_energy"] = energy + 0.02 * len(atoms) * rng.normal()
        atoms.arrays["REF_forces"] = rng.normal(size=(len(atoms), 3))
    turned = rattled_molecules[7].copy()
    turned.rotate(70, (1, 2, 3))
    order = rng.permutation(len(turned))
    copies = [rattled_molecules[4].copy(), turned, rattled_molecules[8].copy()[::-1]]
    copies[1] = turned[order]
    for atoms in copies:
        atoms.info["family"] = "copy"
    return [*rattled_molecules, *copies]


@pytest.fixture
def data(structures: list[Atoms], potential: Potential) -> DataSet:
    return load_data_set(as_frames(structures), potential)


def test_copies_are_found_exact_or_under_the_kernel(data: DataSet, potential: Potential) -> None:
    data, kernel = make_kernel(data, potential, "activation")
    report = check_data(data, kernel, CheckSettings(group_by="family"))
    assert report.equal_sets == ((4, 30),)
    assert report.shared_groups == (("C2H4", "copy", 1),)
    near = {(found.position, found.other) for found in report.of_kind("near-duplicate")}
    assert near == {(31, 7), (32, 8)}
    assert [set(pair[:2]) for pair in report.nearest_groups[:1]] == [{"C2H4", "copy"}]
    assert {frozenset(pair[:2]) for pair in report.nearest_groups} == {
        frozenset({"copy", name}) for name in ("C2H4", "CH4", "CH3OH")
    }
    assert report.n_checked == 32 and report.n_labelled == 33


def test_without_a_kernel_only_exact_copies_are_found(data: DataSet) -> None:
    report = check_data(data)
    assert report.equal_sets == ((4, 30),)
    assert report.of_kind("near-duplicate") == () and report.n_checked == 0


def test_wrong_labels_are_found(structures: list[Atoms]) -> None:
    structures[3].info["REF_energy"] += 30.0
    structures[9].arrays["REF_forces"] = np.full((len(structures[9]), 3), 250.0)
    structures[12].arrays["REF_forces"] = np.zeros((len(structures[12]), 3))
    structures[14].info["REF_energy"] = np.nan
    del structures[20].info["REF_energy"]
    del structures[21].info["REF_energy"], structures[21].arrays["REF_forces"]
    structures[30].info["REF_energy"] += 0.5
    report = check_data(load_data_set(as_frames(structures)))
    assert [found.position for found in report.of_kind("energy-outlier")] == [3]
    assert [found.position for found in report.of_kind("force-outlier")] == [9]
    assert {found.position for found in report.of_kind("bad-label")} == {12, 14, 20}
    (conflict,) = report.of_kind("label-conflict")
    assert (conflict.position, conflict.other) == (30, 4)
    assert conflict.value == pytest.approx(0.5)
    assert report.n_labelled == len(structures) - 4


def test_clean_labels_give_no_findings(structures: list[Atoms]) -> None:
    assert check_data(load_data_set(as_frames(structures))).findings == ()


def test_a_strange_structure_stands_alone(potential: Potential) -> None:
    rng = np.random.default_rng(3)
    many = []
    for _ in range(60):
        atoms = molecule("CH3OH")
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
        many.append(atoms)
    many.insert(17, molecule("N2"))
    data = load_data_set(as_frames(many), potential)
    data, kernel = make_kernel(data, potential, "activation")
    alone = check_data(data, kernel).of_kind("structure-outlier")
    assert alone[0].position == 17
    assert all(found.score > 5 for found in alone)
    # A copy of it explains it: which is why copies are left out first.
    data = load_data_set(as_frames([*many, molecule("N2")]), potential)
    data, kernel = make_kernel(data, potential, "activation")
    assert check_data(data, kernel).of_kind("structure-outlier")[0].position == 17


def test_input_is_left_as_it_was(structures: list[Atoms]) -> None:
    before = [atoms.copy() for atoms in structures]
    check_data(load_data_set(as_frames(structures)))
    for atoms, old in zip(structures, before, strict=True):
        assert atoms == old and atoms.info == old.info


@pytest.mark.parametrize("name", ["threshold", "regularisation", "near"])
def test_wrong_settings_are_refused(data: DataSet, name: str) -> None:
    with pytest.raises(ArgumentError, match=f"{name} is -1"):
        check_data(data, settings=CheckSettings(**{name: -1.0}))


def test_broken_structures_and_lone_atoms_are_set_aside(water: Atoms) -> None:
    broken = water.copy()
    broken.positions[1] = np.nan
    frames = as_frames([water, broken, Atoms("H"), water.copy()])
    data = load_data_set(frames)
    assert [item.reason for item in data.screened] == ["non-finite", "isolated-atom"]
    assert data.indices.tolist() == [0, 3] and data.first_equal.tolist() == [0, 0]
    assert data.is_repeat.tolist() == [False, True] and data.n_read == 4
    with pytest.raises(ScreeningError, match=r"set.xyz@1: non-finite"):
        load_data_set(frames, strict=True)
    with pytest.raises(ArgumentError, match="nothing to work on"):
        load_data_set(frames[1:3])


def test_groups_name_what_lacks_them(water: Atoms) -> None:
    other = water.copy()
    other.info["reaction"] = 7
    data = load_data_set(as_frames([other, water]))
    assert data.groups("reaction") == ["7", ""]
    with pytest.raises(ArgumentError, match=r"1 of 2 structures have no info key 'reaction'"):
        data.groups("reaction", required=True)
    with pytest.raises(ArgumentError, match="2 of 2"):
        data.groups("family")


def strip(structures: Sequence[Atoms]) -> None:
    """Move labels to where ASE keeps those of a calculator."""
    for atoms in structures:
        energy, forces = atoms.info.pop("REF_energy"), atoms.arrays.pop("REF_forces")
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)


def test_keys_of_ase_are_taken_where_the_default_ones_are_nowhere(structures: list[Atoms]) -> None:
    structures[3].info["REF_energy"] += 30.0
    strip(structures)
    report = check_data(load_data_set(as_frames(structures)))
    assert report.label_keys == ("energy", "forces")
    assert [found.position for found in report.of_kind("energy-outlier")] == [3]
    assert report.messages == (
        "No structure has REF_energy or REF_forces: the labels are taken from energy and forces.",
    )


def test_labels_that_are_not_there_are_not_looked_for(structures: list[Atoms]) -> None:
    settings = CheckSettings(energy_key="dft_energy", forces_key="dft_forces")
    report = check_data(load_data_set(as_frames(structures)), settings=settings)
    assert report.label_keys is None and report.n_labelled == 0
    (message,) = report.messages
    assert "labels were not looked for" in message
    assert "numbers: REF_energy; vectors of atoms: REF_forces" in message


def test_energies_in_hartree_are_refused(structures: list[Atoms]) -> None:
    for atoms in structures:
        atoms.info["REF_energy"] /= Hartree
    with pytest.raises(LabelError, match=r"of 33 of 33 .* hartree \(set.xyz@0"):
        check_data(load_data_set(as_frames(structures)))


@pytest.mark.parametrize("factor", [-1.0, Bohr / Hartree])
@pytest.mark.parametrize("step", [1, 10])
def test_forces_are_held_against_a_model(
    structures: list[Atoms], potential: Potential, factor: float, step: int
) -> None:
    _, forces = predict_structures(potential, structures)
    for i, (atoms, force) in enumerate(zip(structures, forces, strict=True)):
        atoms.arrays["REF_forces"] = force * (factor if i % step == 0 else 1.0)
    data = load_data_set(as_frames(structures), potential)
    assert check_data(data).messages == ()
    report = check_data(data, potential=potential)
    kind = "reversed-forces" if factor < 0 else "force-scale"
    assert [found.position for found in report.of_kind(kind)] == list(range(0, 33, step))
    assert len(report.messages) == 1 and "set.xyz@0" in report.messages[0]


def test_calculations_that_did_not_converge_are_found(structures: list[Atoms]) -> None:
    structures[5].info["converged"] = False
    structures[6].info["converged_path"] = False
    report = check_data(load_data_set(as_frames(structures)))
    assert [found.position for found in report.of_kind("unconverged")] == [5]


def test_structures_of_several_heads_are_told(structures: list[Atoms]) -> None:
    for i, atoms in enumerate(structures):
        atoms.info["head"] = "pbe" if i % 3 else "wb97x"
    (message,) = check_data(load_data_set(as_frames(structures))).messages
    assert "name 2 heads under the info key 'head': 'pbe' (22), 'wb97x' (11)" in message
