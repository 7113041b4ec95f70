from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Hartree

from labelwise.campaign.labelling import (
    Failure,
    FilesLabeller,
    FilesSettings,
    Label,
    LabellingError,
    LabelsPending,
    Task,
)
from labelwise.errors import LabelError
from labelwise.structures import Source, hash_structure, write_structures
from tests.campaign.building import label, make_structures


@pytest.fixture
def tasks() -> list[Task]:
    structures = make_structures(6, labelled=False)
    return [Task(hash_structure(a), a, Source("pool", i)) for i, a in enumerate(structures)]


def answer(tasks: list[Task], *, noise: float = 0.0, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    structures = []
    for task in tasks:
        atoms = task.atoms.copy()
        atoms.positions += noise * rng.uniform(-1.0, 1.0, size=atoms.positions.shape)
        label(atoms)
        structures.append(atoms)
    return structures


def take(
    folder: Path, tasks: list[Task], done: Sequence[Task] = (), **options
) -> tuple[dict[str, object], str]:
    """Return the outcomes, and the message if some are pending."""
    found = {}
    try:
        settings = FilesSettings(**options)
        for outcome in FilesLabeller(folder, settings, done).label(deque(tasks)):
            found[outcome.key] = outcome
    except LabelsPending as pending:
        return found, str(pending)
    return found, ""


def test_round_trip(tmp_path: Path, tasks: list[Task]) -> None:
    found, message = take(tmp_path, tasks)
    assert found == {}
    assert "6 structures wait" in message
    asked = ase.io.read(tmp_path / "to_label.extxyz", ":")
    assert [atoms.info["labelwise_key"] for atoms in asked] == [task.key for task in tasks]
    for atoms in asked:
        label(atoms)
    write_structures(tmp_path / "labelled.extxyz", asked)
    found, message = take(tmp_path, tasks)
    assert message == ""
    assert [*found] == [task.key for task in tasks]
    for task, atoms in zip(tasks, asked, strict=True):
        assert found[task.key].energy == atoms.info["REF_energy"]
        assert np.allclose(found[task.key].forces, atoms.arrays["REF_forces"], atol=1e-8)


def test_labels_of_the_pool_are_not_handed_over(tmp_path: Path) -> None:
    atoms = make_structures(1)[0]
    take(tmp_path, [Task("key", atoms, Source("pool", 0))])
    asked = ase.io.read(tmp_path / "to_label.extxyz")
    assert "REF_energy" not in asked.info
    assert "REF_forces" not in asked.arrays
    assert "REF_energy" in atoms.info


def test_part_of_it_in_another_order_and_several_files(tmp_path: Path, tasks: list[Task]) -> None:
    write_structures(tmp_path / "labelled_1.extxyz", answer([tasks[4], tasks[1]], noise=5e-4))
    write_structures(tmp_path / "labelled_2.extxyz", answer([tasks[2]], noise=5e-4))
    found, message = take(tmp_path, tasks)
    assert [*found] == [tasks[i].key for i in (1, 2, 4)]
    assert "3 structures wait" in message
    asked = ase.io.read(tmp_path / "to_label.extxyz", ":")
    assert [a.info["labelwise_key"] for a in asked] == [tasks[i].key for i in (0, 3, 5)]


def test_structures_returned_again_are_no_strangers(tmp_path: Path, tasks: list[Task]) -> None:
    write_structures(tmp_path / "labelled.extxyz", answer(tasks))
    found, message = take(tmp_path, tasks[3:], done=tasks[:3])
    assert [*found] == [task.key for task in tasks[3:]]
    assert message == ""


@pytest.mark.parametrize("change", ["moved", "other", "reordered"])
def test_strangers_are_refused_after_the_rest_was_taken(
    tmp_path: Path, tasks: list[Task], change: str
) -> None:
    structures = answer(tasks[:2])
    stranger = structures[0].copy()
    if change == "moved":
        stranger.positions[0, 0] += 0.01
    elif change == "other":
        stranger.numbers[0] = 7
    else:
        stranger = stranger[::-1]
        stranger.info.update(structures[0].info)
    label(stranger)
    write_structures(tmp_path / "labelled.extxyz", [*structures, stranger])
    found = []
    with pytest.raises(LabellingError, match=r"labelled.extxyz@2 .* is none of the structures"):
        for outcome in FilesLabeller(tmp_path).label(deque(tasks[:2])):
            found.append(outcome.key)  # noqa: PERF401 - what came before the error counts
    assert found == [task.key for task in tasks[:2]]


def test_the_nearer_of_two_neighbours_is_meant(tmp_path: Path, tasks: list[Task]) -> None:
    near = tasks[0].atoms.copy()
    near.positions[0, 0] += 8e-4
    twins = [tasks[0], Task(hash_structure(near), near, Source("pool", 9))]
    write_structures(tmp_path / "labelled.extxyz", answer([twins[1], twins[0]]))
    found, _ = take(tmp_path, twins)
    expected = answer(twins)
    for task, atoms in zip(twins, expected, strict=True):
        assert found[task.key].energy == pytest.approx(atoms.info["REF_energy"], abs=1e-9)


def test_failures_are_reported_by_the_file(tmp_path: Path, tasks: list[Task]) -> None:
    structures = answer(tasks[:4])
    structures[0].info["labelwise_failed"] = "no convergence"
    structures[1].info["REF_energy"] = float("nan")
    structures[2].arrays["REF_forces"][0, 0] = np.nan
    write_structures(tmp_path / "labelled.extxyz", structures)
    found, _ = take(tmp_path, tasks[:4])
    outcomes = [found[task.key] for task in tasks[:4]]
    assert [o.reason for o in outcomes if isinstance(o, Failure)] == [
        "reported", "not-finite", "not-finite",
    ]  # fmt: skip
    assert outcomes[0].detail == "no convergence"
    assert isinstance(outcomes[3], Label)


def test_replacements_are_handed_over_as_well(tmp_path: Path, tasks: list[Task]) -> None:
    structures = answer(tasks[:2])
    structures[0].info["labelwise_failed"] = "no convergence"
    write_structures(tmp_path / "labelled.extxyz", structures)
    queue = deque(tasks[:2])
    with pytest.raises(LabelsPending, match="1 structures wait"):
        for outcome in FilesLabeller(tmp_path).label(queue):
            if isinstance(outcome, Failure):
                queue.append(tasks[2])
    assert ase.io.read(tmp_path / "to_label.extxyz").info["labelwise_key"] == tasks[2].key


def test_results_as_ase_writes_them(tmp_path: Path, tasks: list[Task]) -> None:
    atoms = tasks[0].atoms.copy()
    forces = np.full((len(atoms), 3), 0.25)
    atoms.calc = SinglePointCalculator(atoms, energy=-5.0, forces=forces)
    ase.io.write(tmp_path / "labelled.extxyz", atoms)
    with pytest.raises(LabelError, match=r"labeller.energy_key"):
        take(tmp_path, tasks[:1])
    found, _ = take(tmp_path, tasks[:1], energy_key="energy", forces_key="forces")
    assert found[tasks[0].key].energy == -5.0
    assert np.array_equal(found[tasks[0].key].forces, forces)


def test_cells_count_where_they_are_periodic(tmp_path: Path) -> None:
    atoms = Atoms("O2", [[0, 0, 0], [0, 0, 1.2]], cell=[5, 5, 5], pbc=True)
    task = Task(hash_structure(atoms), atoms, Source("pool", 0))
    other = atoms.copy()
    other.set_cell([5, 5, 5.1])
    label(other)
    write_structures(tmp_path / "labelled.extxyz", [other])
    with pytest.raises(LabellingError, match=r"0\.1 Å off"):
        take(tmp_path, [task])


def test_atoms_may_be_returned_in_other_images(tmp_path: Path) -> None:
    crystal = bulk("Cu", cubic=True)
    crystal.positions += [[0.1, 0.2, -0.3], [0, 0, 0], [9.0, 0, 0], [0, 0, 0.05]]
    slab = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    tasks = [Task(hash_structure(a), a, Source("pool", i)) for i, a in enumerate([crystal, slab])]
    wrapped = []
    for task in tasks:
        atoms = task.atoms.copy()
        atoms.info.clear()
        atoms.positions += [[0, 0, 0], atoms.cell[0]] * (len(atoms) // 2)
        atoms.wrap()
        label(atoms)
        wrapped.append(atoms)
    write_structures(tmp_path / "labelled.extxyz", wrapped)
    found, message = take(tmp_path, tasks)
    assert (set(found), message) == ({task.key for task in tasks}, "")
    lifted = tasks[1].atoms.copy()
    lifted.info.clear()
    lifted.positions[:, 2] += lifted.cell[2, 2]  # not periodic along z
    label(lifted)
    write_structures(tmp_path / "labelled.extxyz", [lifted])
    with pytest.raises(LabellingError, match="asked for"):
        take(tmp_path, tasks[1:])


def test_energies_in_hartree_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    molecules = [molecule(name) for name in ("CH4", "H2O", "CH3OH")]
    tasks = [Task(hash_structure(a), a, Source("pool", i)) for i, a in enumerate(molecules)]
    answers = answer(tasks)
    for atoms, energy in zip(answers, (-40.52, -76.42, -115.72), strict=True):
        atoms.info["REF_energy"] = energy
    ase.io.write(tmp_path / "labelled.extxyz", answers)
    with pytest.raises(LabelError, match=r"of 3 of 3 returned .* hartree \(.*labelled.extxyz@0"):
        take(tmp_path, tasks)
    for atoms in answers:
        atoms.info["REF_energy"] *= Hartree
    ase.io.write(tmp_path / "labelled.extxyz", answers)
    found, _ = take(tmp_path, tasks)
    assert [found[task.key].energy for task in tasks] == [a.info["REF_energy"] for a in answers]


def charged(charges: list[int]) -> list[Task]:
    """Return tasks of one geometry with different charges; neutral ones do not say so."""
    structures = []
    for charge in charges:
        atoms = make_structures(1, labelled=False)[0]
        if charge:
            atoms.info.update(total_charge=charge, total_spin=2)
        structures.append(atoms)
    return [Task(hash_structure(a), a, Source("pool", i)) for i, a in enumerate(structures)]


def energies_of(tasks: list[Task], *, keep: tuple[str, ...]) -> list[Atoms]:
    """Return answers whose energies tell them apart, last task first."""
    answers = answer(tasks)
    for number, (task, atoms) in enumerate(zip(tasks, answers, strict=True)):
        atoms.info["REF_energy"] = -100.0 - number
        kept = {key: task.atoms.info[key] for key in keep if key in task.atoms.info}
        atoms.info = {"REF_energy": atoms.info["REF_energy"], **kept}
        if "labelwise_key" in keep:
            atoms.info["labelwise_key"] = task.key
    return answers[::-1]


@pytest.mark.parametrize("keep", [("labelwise_key",), ("total_charge", "total_spin")])
def test_charges_of_one_geometry_are_told_apart(tmp_path: Path, keep: tuple[str, ...]) -> None:
    tasks = charged([1, -1, 2])
    write_structures(tmp_path / "labelled.extxyz", energies_of(tasks, keep=keep))
    found, _ = take(tmp_path, tasks)
    assert [found[task.key].energy for task in tasks] == [-100.0, -101.0, -102.0]


def test_a_lone_geometry_is_matched_without_its_charge(tmp_path: Path, tasks: list[Task]) -> None:
    one = charged([1])
    write_structures(tmp_path / "labelled.extxyz", energies_of(one, keep=()))
    found, _ = take(tmp_path, [*tasks[1:], *one])
    assert found[one[0].key].energy == -100.0


@pytest.mark.parametrize("charges", [[0, 1], [1, -1]])
def test_a_charge_that_is_not_told_is_asked_for(tmp_path: Path, charges: list[int]) -> None:
    tasks = charged(charges)
    write_structures(tmp_path / "labelled.extxyz", energies_of(tasks, keep=()))
    with pytest.raises(LabellingError, match="return each with its labelwise_key"):
        take(tmp_path, tasks)


@pytest.mark.parametrize("keep", [("labelwise_key",), ()])
def test_a_label_of_another_charge_is_refused(tmp_path: Path, keep: tuple[str, ...]) -> None:
    tasks = charged([-1])
    (returned,) = energies_of(tasks, keep=keep)
    returned.info["total_charge"] = 1
    write_structures(tmp_path / "labelled.extxyz", [returned])
    with pytest.raises(LabellingError, match=r"its total charge is 1\.0, not -1\.0 as asked for"):
        take(tmp_path, tasks)
    returned.info.update(total_charge=-1.0, multiplicity=2)
    write_structures(tmp_path / "labelled.extxyz", [returned])
    found, _ = take(tmp_path, tasks)
    assert found[tasks[0].key].energy == -100.0


def boxed(task: Task) -> Atoms:
    """Return a labelled molecule as somebody hands it to a plane-wave code."""
    atoms = task.atoms.copy()
    label(atoms)
    atoms.info["labelwise_key"] = task.key
    atoms.center(vacuum=4.0)
    atoms.pbc = True
    return atoms


@pytest.mark.parametrize("change", ["boxed", "wrapped", "moved", "box alone"])
def test_molecules_may_be_moved_as_a_whole_and_given_a_box(
    tmp_path: Path, tasks: list[Task], change: str
) -> None:
    returned = [boxed(task) for task in tasks]
    for atoms, task in zip(returned, tasks, strict=True):
        if change == "wrapped":  # about a corner of the box
            atoms.positions -= atoms.positions.mean(axis=0)
            atoms.wrap()
        elif change == "moved":
            atoms.cell, atoms.pbc = None, False
        elif change == "box alone":
            atoms.positions = task.atoms.positions
    write_structures(tmp_path / "labelled.extxyz", returned)
    found, message = take(tmp_path, tasks)
    assert message == ""
    for atoms, task in zip(returned, tasks, strict=True):
        assert found[task.key].energy == pytest.approx(atoms.info["REF_energy"])
        assert np.allclose(found[task.key].forces, atoms.arrays["REF_forces"], atol=1e-7)


def test_crystals_and_slabs_may_be_moved_as_a_whole(tmp_path: Path) -> None:
    crystal, slab = bulk("Cu", cubic=True), fcc111("Cu", (2, 2, 2), vacuum=6.0)
    slab.info.clear()
    tasks = [Task(hash_structure(a), a, Source("pool", i)) for i, a in enumerate([crystal, slab])]
    returned = [boxed(task) for task in tasks]
    for atoms, task in zip(returned, tasks, strict=True):
        atoms.positions = task.atoms.positions + np.array([0.3, -0.9, 1.7])
        atoms.cell = task.atoms.cell
        atoms.wrap()
    write_structures(tmp_path / "labelled.extxyz", returned)
    found, message = take(tmp_path, tasks)
    assert (set(found), message) == ({task.key for task in tasks}, "")
    returned[0].set_cell(1.01 * returned[0].cell, scale_atoms=True)
    write_structures(tmp_path / "labelled.extxyz", returned)
    with pytest.raises(LabellingError, match=r"0\.0361 Å off, wherever it is moved"):
        take(tmp_path, tasks)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("turned", "turned or mirrored, so that its forces point elsewhere"),
        ("mirrored", "turned or mirrored"),
        ("relaxed", r"0\.05 Å off, wherever it is moved as a whole, as if it had been relaxed"),
        ("reordered", "has other elements, or these in another order"),
        ("without key", r"the nearest one asked for is .* Å off"),
        ("two cells", r"Å off"),
    ],
)
def test_other_changes_are_refused_with_what_was_found(
    tmp_path: Path, tasks: list[Task], change: str, said: str
) -> None:
    atoms = boxed(tasks[3])  # methanol
    if change == "turned":
        atoms.rotate(90, "z", center="COP")
    elif change == "mirrored":
        atoms.positions *= [1, 1, -1]
    elif change == "relaxed":
        atoms.positions[0, 0] += 0.1
    elif change == "reordered":
        atoms = atoms[::-1]
    elif change == "without key":
        del atoms.info["labelwise_key"]
    else:
        atoms.positions[0] += 0.5 * atoms.cell[0]
    write_structures(tmp_path / "labelled.extxyz", [atoms])
    with pytest.raises(LabellingError, match=said):
        take(tmp_path, tasks)


def test_a_key_tells_structures_apart_that_are_one_geometry(tmp_path: Path) -> None:
    """The same atoms with another charge: only their keys differ."""
    structures = [make_structures(1, labelled=False)[0] for _ in range(2)]
    tasks = [Task(f"key{i}", atoms, Source("pool", i)) for i, atoms in enumerate(structures)]
    returned = [boxed(task) for task in reversed(tasks)]
    returned[0].info["REF_energy"] -= 5.0
    write_structures(tmp_path / "labelled.extxyz", returned)
    found, _ = take(tmp_path, tasks)
    assert found["key1"].energy == pytest.approx(found["key0"].energy - 5.0)


@pytest.mark.parametrize("what", ["REF_energy", "REF_forces", "labelwise_failed"])
def test_two_labels_for_one_structure_are_refused(
    tmp_path: Path, tasks: list[Task], what: str
) -> None:
    first, second = answer(tasks[:3]), answer(tasks[1:2])
    if what == "labelwise_failed":
        second[0].info[what] = "SCF"
    elif what == "REF_energy":
        second[0].info[what] += 0.5
    else:
        second[0].arrays[what][0, 0] += 0.01
    write_structures(tmp_path / "labelled_a.extxyz", first)
    write_structures(tmp_path / "labelled_b.extxyz", second)
    said = r"labelled_b.extxyz@0 and .*labelled_a.extxyz@1 are one structure"
    if what != "labelwise_failed":
        said = r"labelled_a.extxyz@1 and .*labelled_b.extxyz@0 are one structure"
    found = []
    with pytest.raises(LabellingError, match=said):
        for outcome in FilesLabeller(tmp_path).label(deque(tasks[:3])):
            found.append(outcome.key)  # noqa: PERF401 - what came before the error counts
    assert found == [tasks[0].key, tasks[2].key]
    with pytest.raises(LabellingError, match=said):
        take(tmp_path, tasks[2:3], done=tasks[:2])


def test_one_label_twice_and_a_second_try_are_taken(tmp_path: Path, tasks: list[Task]) -> None:
    failed = answer(tasks[:1])
    failed[0].info["labelwise_failed"] = "SCF"
    write_structures(tmp_path / "labelled_a.extxyz", [*failed, *answer(tasks[1:2])])
    write_structures(tmp_path / "labelled_b.extxyz", answer(tasks[:2]))
    found, message = take(tmp_path, tasks[:2])
    assert message == ""
    assert all(isinstance(found[task.key], Label) for task in tasks[:2])


@pytest.mark.parametrize("said", ["converged=F", "SCF_converged=False", "is_converged=0"])
def test_files_may_say_that_a_calculation_did_not_converge(
    tmp_path: Path, tasks: list[Task], said: str
) -> None:
    write_structures(tmp_path / "labelled.extxyz", answer(tasks[:2]))
    path = tmp_path / "labelled.extxyz"
    lines = path.read_text().splitlines()
    lines[1] += f" {said}"
    path.write_text("\n".join(lines) + "\n")
    found, _ = take(tmp_path, tasks[:2])
    assert [type(found[task.key]) for task in tasks[:2]] == [Failure, Label]
    assert found[tasks[0].key].reason == "not-converged"
    assert "labelled.extxyz@0" in found[tasks[0].key].detail


def test_the_hand_over_says_how_to_mark_a_failure(tmp_path: Path, tasks: list[Task]) -> None:
    assert "did not converge with labelwise_failed=reason" in take(tmp_path, tasks)[1]
