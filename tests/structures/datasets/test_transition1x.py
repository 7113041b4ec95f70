from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from labelwise.errors import ArgumentError, DataSetError, MissingDependencyError
from labelwise.structures.datasets.base import (
    Entry,
    LabelledStructure,
)
from labelwise.structures.datasets.frame_text import format_frame
from labelwise.structures.datasets.transition1x import FORMAT, Transition1xFile, recognise

ENERGY, FORCES = "wB97x_6-31G(d).energy", "wB97x_6-31G(d).forces"
#: Energies of atoms in eV, about those of ωB97X/6-31G(d).
OF_ATOMS = {1: -13.6, 6: -1029.4, 7: -1484.9, 8: -2041.8}
WATER, METHANE = [8, 1, 1], [6, 1, 1, 1, 1]


def add_reaction(
    file: h5py.File, formula: str, name: str, numbers: list[int], n_images: int, seed: int = 0
) -> h5py.Group:
    """Lay out a reaction as the publishers do, its ends included."""
    rng = np.random.default_rng(seed)
    n_atoms = len(numbers)
    group = file.require_group(f"data/{formula}").create_group(name)
    rows = {
        "positions": rng.normal(size=(n_images, n_atoms, 3)),
        ENERGY: sum(OF_ATOMS[number] for number in numbers) + rng.normal(size=n_images),
        FORCES: rng.normal(size=(n_images, n_atoms, 3)),
    }
    ends = {"reactant": 0, "transition_state": n_images - 3, "product": 9}
    for target, image in [
        (group, None),
        *((group.create_group(end), i) for end, i in ends.items()),
    ]:
        chosen = slice(None) if image is None else slice(image, image + 1)
        target["atomic_numbers"] = np.array(numbers)
        for key, values in rows.items():
            target[key] = values[chosen]
        if image is not None:
            target["hash"] = 12345678
    return group


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two reactions of water and one of methane, of 10, 18 and 10 images."""
    path = tmp_path / "Transition1x.h5"
    with h5py.File(path, "w") as file:
        for split in ("train", "val", "test"):
            file.create_group(split)
        add_reaction(file, "H2O", "rxn0002", WATER, 18, seed=1)
        add_reaction(file, "H2O", "rxn0000", WATER, 10, seed=2)
        add_reaction(file, "CH4", "rxn0001", METHANE, 10, seed=3)
        file["train"]["H2O"] = h5py.SoftLink("/data/H2O")
        file["test"]["CH4"] = h5py.SoftLink("/data/CH4")
    return path


def read_all(path: Path, wanted: list[int] | None = None) -> list[LabelledStructure]:
    with Transition1xFile(path) as file:
        return list(file.iter_structures(wanted))


def list_entries(path: Path) -> list[Entry]:
    with Transition1xFile(path) as file:
        return list(file.iter_entries())


def is_same(one: LabelledStructure, other: LabelledStructure) -> bool:
    return (
        one.entry == other.entry
        and one.atoms == other.atoms
        and one.atoms.info == other.atoms.info
        and np.array_equal(one.atoms.arrays["REF_forces"], other.atoms.arrays["REF_forces"])
    )


@contextmanager
def edit(path: Path) -> Iterator[h5py.File]:
    with h5py.File(path, "r+") as file:
        yield file


def test_entries(path: Path) -> None:
    entries = list_entries(path)
    assert [entry.position for entry in entries] == list(range(38))
    assert [entry.name for entry in entries[8:12]] == [
        "CH4/rxn0001/8",
        "CH4/rxn0001/9",
        "H2O/rxn0000/0",
        "H2O/rxn0000/1",
    ]
    assert entries[21] == Entry(
        21, "H2O/rxn0002/1", "rxn0002", 1, None, "train", 3, (1, 8), None, None
    )
    assert entries[0].split == "test"


def test_numbers_are_those_of_the_file(path: Path) -> None:
    structures = read_all(path)
    assert len(structures) == 38
    with h5py.File(path) as file:
        for structure in structures:
            group, image = structure.entry.name.rsplit("/", 1)
            stored = file["data"][group]
            atoms = structure.atoms
            assert np.array_equal(atoms.numbers, stored["atomic_numbers"])
            assert np.array_equal(atoms.positions, stored["positions"][int(image)])
            assert np.array_equal(atoms.arrays["REF_forces"], stored[FORCES][int(image)])
            assert atoms.info["REF_energy"] == stored[ENERGY][int(image)]
            assert atoms.info["frame"] == int(image)
            assert not atoms.pbc.any()
    assert structures[0].atoms.info["reaction"] == "rxn0001"
    assert structures[0].atoms.info["formula"] == "CH4"
    assert [structure.entry for structure in structures] == list_entries(path)


def test_the_ends_are_not_given_twice(path: Path) -> None:
    energies = [structure.atoms.info["REF_energy"] for structure in read_all(path)]
    assert len(set(energies)) == len(energies) == 38


def test_reactions_of_the_same_name_are_told_apart(path: Path) -> None:
    with edit(path) as file:
        add_reaction(file, "CH4", "rxn0000", METHANE, 10)
    families = list(dict.fromkeys(entry.family for entry in list_entries(path)))
    assert families == ["CH4/rxn0000", "CH4/rxn0001", "H2O/rxn0000", "H2O/rxn0002"]
    with edit(path) as file:
        del file["data/CH4/rxn0000"]
    assert {entry.family for entry in list_entries(path)} == {"rxn0000", "rxn0001", "rxn0002"}


def test_a_file_without_splits(path: Path) -> None:
    with edit(path) as file:
        for split in ("train", "val", "test"):
            del file[split]
    assert {structure.entry.split for structure in read_all(path)} == {None}


def test_wanted_structures_are_those_of_a_full_read(path: Path) -> None:
    everything = read_all(path)
    rng = np.random.default_rng(0)
    for n_wanted in (1, 2, 7, 37, 38):
        wanted = sorted(rng.choice(38, n_wanted, replace=False).tolist())
        found = read_all(path, wanted)
        assert [structure.entry.position for structure in found] == wanted
        assert all(is_same(each, everything[each.entry.position]) for each in found)
    assert read_all(path, []) == []


def test_what_is_not_wanted_is_not_read(path: Path) -> None:
    with edit(path) as file:
        del file["data/CH4/rxn0001"][FORCES]
        del file["data/H2O/rxn0002"][ENERGY]
    assert [structure.entry.name for structure in read_all(path, [10, 19])] == [
        "H2O/rxn0000/0",
        "H2O/rxn0000/9",
    ]
    with pytest.raises(DataSetError, match="CH4/rxn0001: there is no dataset"):
        read_all(path, [9, 10])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([3, 3], "position 3 is wanted .* must ascend"),
        ([4, 2], "position 2 is wanted .* must ascend"),
        ([-1], "position -1 is wanted"),
        ([38], "position 38 is wanted .* holds 38 structures"),
    ],
)
def test_wanted_positions_that_cannot_be(path: Path, wanted: list[int], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        read_all(path, wanted)


def test_a_long_reaction_is_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "long.h5"
    with h5py.File(path, "w") as file:
        add_reaction(file, "C4H8NO", "rxn0000", [6] * 4 + [7, 8] + [1] * 8, 20_000)
    n_bytes = path.stat().st_size
    with Transition1xFile(path) as file:
        tracemalloc.start()
        kept = [
            each.atoms.info["REF_energy"] for each in file.iter_structures(range(0, 20_000, 40))
        ]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(kept) == 500
    with h5py.File(path) as stored:
        assert kept == stored["data/C4H8NO/rxn0000"][ENERGY][::40].tolist()
    assert peak < n_bytes / 2
    assert n_bytes > 13e6


def test_a_structure_does_not_keep_its_neighbours_in_memory(path: Path) -> None:
    structure = read_all(path)[0]
    assert structure.atoms.positions.base is None
    assert structure.atoms.arrays["REF_forces"].base is None


def test_frames_are_read_back_by_ase(path: Path) -> None:
    for structure in read_all(path)[::9]:
        atoms = read(StringIO(format_frame(structure)), format="extxyz")
        assert isinstance(atoms, Atoms)
        assert np.array_equal(atoms.positions, structure.atoms.positions)
        assert np.array_equal(atoms.arrays["REF_forces"], structure.atoms.arrays["REF_forces"])
        assert atoms.info == structure.atoms.info


def damage_group(key: str, values: Any) -> Callable[[h5py.File], None]:
    """Return an edit that puts other values in place of a dataset of H2O/rxn0000."""

    def change(file: h5py.File) -> None:
        del file["data/H2O/rxn0000"][key]
        if values is not None:
            file["data/H2O/rxn0000"][key] = values

    return change


def put_nan(file: h5py.File) -> None:
    file["data/H2O/rxn0000"][FORCES][4, 1, 2] = np.nan


def store_hartree(file: h5py.File) -> None:
    file["data/H2O/rxn0000"][ENERGY][...] /= 27.211386


def lead_nowhere(file: h5py.File) -> None:
    file["val"]["C2H6"] = h5py.SoftLink("/data/C2H6")


def share_formula(file: h5py.File) -> None:
    file["val"]["H2O"] = h5py.SoftLink("/data/H2O")


def split_alone(file: h5py.File) -> None:
    file.create_group("val/NH3/rxn0009")


def rename_formula(file: h5py.File) -> None:
    del file["train"]["H2O"]
    file.move("data/H2O", "data/H2O2")


def dataset_for_reaction(file: h5py.File) -> None:
    file["data/H2O/rxn0005"] = np.zeros(3)


def empty_reaction(file: h5py.File) -> None:
    file.create_group("data/H2O/rxn0005")


def dataset_for_formula(file: h5py.File) -> None:
    file["data/XY"] = 1.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            damage_group(FORCES, None),
            r"H2O/rxn0000: there is no dataset 'wB97x_6-31G\(d\)\.forces'",
        ),
        (damage_group(ENERGY, None), "there is no dataset .*atomic_numbers"),
        (damage_group("positions", None), "there is no dataset 'positions'"),
        (damage_group("atomic_numbers", None), "there is no dataset 'atomic_numbers'"),
        (damage_group(FORCES, np.zeros((10, 3))), r"shape \(10, 3\); expected \(10, 3, 3\)"),
        (damage_group(FORCES, np.zeros((9, 3, 3))), r"shape \(9, 3, 3\); expected \(10, 3, 3\)"),
        (damage_group(ENERGY, np.zeros(11)), r"shape \(11,\); expected \(10,\)"),
        (damage_group("positions", np.zeros((10, 4, 3))), r"shape \(10, 4, 3\)"),
        (damage_group("positions", 1.0), "is one number"),
        (damage_group(ENERGY, [b"low"] * 10), "not numbers"),
        (damage_group("atomic_numbers", [8, 1, 1, 1]), "named H2O, and its atomic numbers"),
        (damage_group("atomic_numbers", [8, 1, 2]), "named H2O, and its atomic numbers"),
        (damage_group("atomic_numbers", [8, 1, 0]), "allowed are 1-118"),
        (damage_group("atomic_numbers", [8.0, 1.0, 1.0]), "a list of integers"),
        (put_nan, "H2O/rxn0000/4: forces: not finite"),
        (store_hartree, "H2O/rxn0000/0: a total energy of .* in hartree"),
        (lead_nowhere, "the link /val/C2H6 leads nowhere"),
        (share_formula, "H2O/rxn0000 is in both /train and /val"),
        (split_alone, "/val has NH3/rxn0009, /data has not"),
        (rename_formula, "the group is named H2O2"),
        (dataset_for_reaction, "H2O/rxn0005: not a group"),
        (empty_reaction, "H2O/rxn0005: there is no dataset 'positions'; here are: nothing"),
        (dataset_for_formula, "/data/XY is not a group of reactions"),
    ],
)
def test_damage_is_named(path: Path, damage: Callable[[h5py.File], None], message: str) -> None:
    with edit(path) as file:
        damage(file)
    with pytest.raises(DataSetError, match=message) as caught:
        read_all(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_short(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert recognise(path)
    with pytest.raises(DataSetError, match="cannot be opened as HDF5"):
        FORMAT.open(path)


def test_other_files(path: Path, tmp_path: Path) -> None:
    assert recognise(path)
    text = tmp_path / "text.h5"
    text.write_text("energy\n")
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file.create_group("experiment")
    assert not recognise(text)
    assert not recognise(other)
    assert not recognise(tmp_path)
    assert not recognise(tmp_path / "missing.h5")
    with pytest.raises(DataSetError, match=r"text\.h5 cannot be opened as HDF5"):
        FORMAT.open(text)
    with pytest.raises(DataSetError, match=r"there is no group /data; .*experiment"):
        FORMAT.open(other)


def test_a_file_that_was_closed(path: Path) -> None:
    file = Transition1xFile(path)
    file.close()
    file.close()
    with pytest.raises(DataSetError, match="was closed"):
        next(file.iter_structures())


def test_h5py_may_be_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"labelwise\[data\]"):
        Transition1xFile(path)
    with pytest.raises(MissingDependencyError, match=r"labelwise\[data\]"):
        recognise(path)
