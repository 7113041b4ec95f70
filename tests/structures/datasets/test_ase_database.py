from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength
from ase.db import connect

from labelwise.errors import ArgumentError, DataSetError, LabelwiseWarning, WriteError
from labelwise.structures.datasets.ase_database import FORMAT
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.datasets.frame_text import format_frame


def labelled(name: str, seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = molecule(name)
    atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    forces = rng.normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=forces)
    return atoms


@pytest.fixture
def molecules() -> list[Atoms]:
    names = ["H2O", "CH4", "CH3OH", "NH3", "C2H6", "HCN"]
    return [labelled(name, seed) for seed, name in enumerate(names)]


@pytest.fixture(params=["db", "json"])
def database_file(request: pytest.FixtureRequest, tmp_path: Path, molecules: list[Atoms]) -> Path:
    """Six molecules, as ASE itself writes them."""
    path = tmp_path / "data" / f"molecules.{request.param}"
    path.parent.mkdir()
    return write_with_ase(path, molecules)


def write_with_ase(path: Path, structures: list[Atoms], **keys: Any) -> Path:
    with connect(path, use_lock_file=False) as database:
        for number, atoms in enumerate(structures):
            charges = {"bader": np.arange(len(atoms)) / 7}
            data = {**charges, "charge": -1, "spin": 2}
            database.write(atoms, data=data, family="both", frame=number, **keys)
    return path


def read(path: Path, wanted: list[int] | None = None) -> list[LabelledStructure]:
    with FORMAT.open(path) as data:
        return list(data.iter_structures(wanted))


def test_reads_what_ase_wrote_to_the_last_digit(
    database_file: Path, molecules: list[Atoms]
) -> None:
    found = read(database_file)
    for structure, atoms in zip(found, molecules, strict=True):
        assert structure.atoms.info["REF_energy"] == atoms.calc.results["energy"]
        assert np.array_equal(structure.atoms.arrays["REF_forces"], atoms.calc.results["forces"])
        assert np.array_equal(structure.atoms.positions, atoms.positions)
        assert np.array_equal(structure.atoms.numbers, atoms.numbers)
        assert np.array_equal(structure.atoms.info["bader"], np.arange(len(atoms)) / 7)
        assert (structure.atoms.info["charge"], structure.atoms.info["spin"]) == (-1, 2)
        assert structure.atoms.calc is None
        assert not structure.atoms.cell.any()


def test_entries_say_what_the_structures_say(database_file: Path) -> None:
    with FORMAT.open(database_file) as data:
        entries = list(data.iter_entries())
    assert entries == [structure.entry for structure in read(database_file)]
    assert [entry.name for entry in entries] == [f"molecules/{i}" for i in range(1, 7)]
    assert [entry.order for entry in entries] == list(range(6))
    assert {entry.family for entry in entries} == {"both"}
    assert (entries[2].n_atoms, entries[2].elements) == (6, (1, 6, 8))
    assert (entries[2].charge, entries[2].spin, entries[2].subset) == (-1, 2, None)


def test_only_wanted_rows_are_read(database_file: Path) -> None:
    everything = read(database_file)
    connect(database_file, use_lock_file=False).delete([2])
    chosen = read(database_file, [0, 1, 4])
    assert [each.entry.name for each in chosen] == ["molecules/1", "molecules/3", "molecules/6"]
    assert [each.entry.position for each in chosen] == [0, 1, 4]
    assert np.array_equal(chosen[1].atoms.positions, everything[2].atoms.positions)
    assert read(database_file, []) == []


@pytest.mark.parametrize("wanted", [[6], [0, 99], [3, 1], [1, 1]])
def test_positions_that_are_not_there(database_file: Path, wanted: list[int]) -> None:
    with pytest.raises(ArgumentError, match=r"position \d+ is wanted .* holds 6 structures"):
        read(database_file, wanted)


def test_many_rows_are_read_page_by_page(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    with connect(path, use_lock_file=False) as database:
        for number in range(1203):
            hydrogen = Atoms("H", [[number, 0, 0]])
            hydrogen.calc = SinglePointCalculator(hydrogen, energy=number, forces=[[0, 0, 0]])
            database.write(hydrogen)
        database.delete([1, *range(400, 700)])
    left = [number for number in range(1203) if number + 1 not in {1, *range(400, 700)}]
    found = read(path)
    assert [each.atoms.info["REF_energy"] for each in found] == left
    assert [each.entry.position for each in found] == list(range(len(left)))
    wanted = [0, 398, 499, 500, 501, len(left) - 1]
    assert [each.atoms.info["REF_energy"] for each in read(path, wanted)] == [
        left[position] for position in wanted
    ]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_no_file_is_made_and_none_is_touched(
    tmp_path: Path, molecules: list[Atoms], mode: str
) -> None:
    path = write_with_ase(tmp_path / "x.db", molecules)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
    folder = tmp_path / "locked"
    folder.mkdir()
    copy = Path(shutil.copy(path, folder))
    copy.chmod(0o444)
    folder.chmod(0o555)
    before = folder.stat().st_mtime_ns, copy.stat().st_mtime_ns
    try:
        assert len(read(copy)) == 6
        assert [each.name for each in folder.iterdir()] == ["x.db"]
        assert (folder.stat().st_mtime_ns, copy.stat().st_mtime_ns) == before
    finally:
        folder.chmod(0o755)


def test_a_log_that_is_still_open_is_read_too(tmp_path: Path, molecules: list[Atoms]) -> None:
    path = write_with_ase(tmp_path / "x.db", molecules)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("UPDATE systems SET energy = 17.5 WHERE id = 1")
        connection.commit()
        assert read(path)[0].atoms.info["REF_energy"] == 17.5


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_cell_tags_and_constraints_are_kept(tmp_path: Path, suffix: str) -> None:
    slab = Atoms("Pt2H", [[0, 0, 0], [2, 0, 0], [1, 1, 1.5]], cell=[4, 5, 15], pbc=[1, 1, 0])
    slab.set_tags([0, 1, 2])
    slab.set_constraint([FixAtoms([0]), FixBondLength(1, 2)])
    forces = np.arange(9.0).reshape(3, 3)
    slab.calc = SinglePointCalculator(slab, energy=-3.25, forces=forces)
    (structure,) = read(write_with_ase(tmp_path / f"slab.{suffix}", [slab]))
    assert np.array_equal(structure.atoms.cell.array, slab.cell.array)
    assert structure.atoms.pbc.tolist() == [True, True, False]
    assert structure.atoms.get_tags().tolist() == [0, 1, 2]
    assert [each.todict() for each in structure.atoms.constraints] == [
        each.todict() for each in slab.constraints
    ]
    assert np.array_equal(structure.atoms.arrays["REF_forces"], forces)  # of fixed atoms too


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_own_labels_win_over_the_calculator(
    tmp_path: Path, suffix: str, molecules: list[Atoms]
) -> None:
    path = tmp_path / f"x.{suffix}"
    with connect(path, use_lock_file=False) as database:
        data = {"REF_forces": np.ones((3, 3))}
        database.write(molecules[0], data=data, REF_energy=-7.5, name="mine")
    (structure,) = read(path)
    assert structure.atoms.info["REF_energy"] == -7.5
    assert np.array_equal(structure.atoms.arrays["REF_forces"], np.ones((3, 3)))
    assert structure.entry.name == "mine"


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_a_charge_among_the_pairs_is_not_that_of_initial_charges(
    tmp_path: Path, suffix: str, molecules: list[Atoms]
) -> None:
    path = tmp_path / f"x.{suffix}"
    with connect(path, use_lock_file=False) as database:
        database.write(molecules[0], charge=-2, spin=3, mass=0.5)
        assert database.get(1).key_value_pairs["charge"] == 0  # ASE's own answer
    (structure,) = read(path)
    assert (structure.entry.charge, structure.entry.spin) == (-2, 3)
    assert structure.atoms.info["mass"] == 0.5


def test_labels_of_two_kinds_are_not_mixed(tmp_path: Path, molecules: list[Atoms]) -> None:
    path = write_with_ase(tmp_path / "x.db", molecules[:1], REF_energy=-7.5)
    with pytest.raises(DataSetError, match=r"x\.db: row 1 has no REF_forces; every row needs"):
        read(path)


def without_results(atoms: Atoms) -> Atoms:
    atoms.calc = None
    return atoms


def only_energy(atoms: Atoms) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    return atoms


def infinite(atoms: Atoms) -> Atoms:
    forces = np.full((len(atoms), 3), np.inf)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=forces)
    return atoms


def other_unit(atoms: Atoms) -> Atoms:
    forces = np.full((len(atoms), 3), 1e5)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=forces)
    return atoms


@pytest.mark.parametrize("suffix", ["db", "json"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_results, "row 4 has no energy and no forces"),
        (only_energy, "row 4 has no forces"),
        (infinite, "row 4: forces: not finite"),
        (other_unit, "row 4: a force component of 1e"),
    ],
)
def test_one_bad_row_among_others_is_named(
    tmp_path: Path,
    molecules: list[Atoms],
    suffix: str,
    change: Callable[[Atoms], Atoms],
    message: str,
) -> None:
    molecules[3] = change(molecules[3])
    path = write_with_ase(tmp_path / f"x.{suffix}", molecules)
    with FORMAT.open(path) as data, pytest.raises(DataSetError, match=message) as caught:
        list(data.iter_structures())
    assert str(path) in str(caught.value)
    assert [each.entry.position for each in read(path, [2, 4])] == [2, 4]


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_rows_without_labels_are_refused_before_structures_are_read(
    tmp_path: Path, molecules: list[Atoms], suffix: str
) -> None:
    path = write_with_ase(tmp_path / f"x.{suffix}", [*molecules, molecule("H2")])
    with FORMAT.open(path) as data, pytest.raises(DataSetError, match="row 7 has no energy"):
        list(data.iter_entries())


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("forces", b"1234567", "cannot be read after row 2"),
        ("forces", np.ones(3).tobytes(), r"row 3: forces: shape \(1, 3\)"),
        ("positions", None, "row 3: positions are not numbers"),
        ("numbers", b"", "row 3: "),
        ("numbers", np.full(6, 200, np.int32).tobytes(), "row 3: atomic numbers are"),
        ("data", b"\x01", "row 3: data cannot be decoded"),
        ("data", "{", "row 3: data cannot be decoded"),
        ("data", "[1]", "row 3: data cannot be decoded"),
        ("constraints", '[{"name": "Gone", "kwargs": {}}]', "row 3: constraints cannot be"),
        (
            "constraints",
            '[{"name": "FixAtoms", "kwargs": {"indices": [99]}}]',
            "row 3: fixed atoms: index 99",
        ),
        ("key_value_pairs", "{", "cannot be read after row 2"),
        ("key_value_pairs", '{"charge": 0.5}', "row 3: charge is 0.5; expected an integer"),
        ("key_value_pairs", '{"spin": 0}', "row 3: spin is 0; it is the multiplicity"),
    ],
)
def test_damaged_rows_of_sqlite_are_refused(
    tmp_path: Path, molecules: list[Atoms], column: str, value: Any, message: str
) -> None:
    path = write_with_ase(tmp_path / "x.db", molecules)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE systems SET {column} = ? WHERE id = 3", [value])
        connection.commit()
    with pytest.raises(DataSetError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_truncated_files_are_refused(database_file: Path) -> None:
    content = database_file.read_bytes()
    for n_bytes in (0, 10, 99, 100, 5000, len(content) // 2, len(content) - 2):
        database_file.write_bytes(content[:n_bytes])
        with pytest.raises(DataSetError, match=str(database_file)):
            read(database_file)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    text, other, nothing = tmp_path / "text.db", tmp_path / "other.db", tmp_path / "x.json"
    text.write_text("REF_energy=1\n" * 1000)
    with pytest.raises(DataSetError, match="is not an SQLite file"):
        FORMAT.open(text)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    before = other.read_bytes()
    with pytest.raises(DataSetError, match=r"other\.db cannot be read \(no such table: systems"):
        read(other)
    assert other.read_bytes() == before  # ASE would have made its tables in it
    nothing.write_text(json.dumps({"energy": 1}))
    with pytest.raises(DataSetError, match="is not a JSON database of ASE"):
        FORMAT.open(nothing)
    with pytest.raises(DataSetError, match="is not a file"):
        FORMAT.open(tmp_path)


def test_ase_reads_what_was_written(
    tmp_path: Path, database_file: Path, molecules: list[Atoms]
) -> None:
    path = tmp_path / "written" / "x.db"
    assert FORMAT.write is not None
    assert FORMAT.write(path, read(database_file)) == 6
    assert [each.name for each in path.parent.iterdir()] == ["x.db"]
    with connect(path, use_lock_file=False) as database:
        for row, atoms in zip(database.select(), molecules, strict=True):
            again = row.toatoms()
            assert again.calc.results["energy"] == atoms.calc.results["energy"]
            assert np.array_equal(again.calc.results["forces"], atoms.calc.results["forces"])
            assert np.array_equal(again.positions, atoms.positions)
            assert np.array_equal(row.data["bader"], np.arange(len(atoms)) / 7)
            assert (row.data["charge"], row.data["spin"], row.data["family"]) == (-1, 2, "both")


def test_the_written_file_is_read_as_it_was(tmp_path: Path, database_file: Path) -> None:
    before = read(database_file)
    before[0].atoms.info |= {"count": np.int64(3), "ratio": np.float32(0.5), "words": ["a", "b"]}
    unchanged = format_frame(before[0])
    path = tmp_path / "written.db"
    assert FORMAT.write is not None
    FORMAT.write(path, before)
    for old, new in zip(before, read(path), strict=True):
        assert new.entry == old.entry
        assert format_frame(new) == format_frame(old)
    assert format_frame(before[0]) == unchanged
    assert before[0].atoms.calc is None


def test_a_slab_is_written_as_it_was(tmp_path: Path) -> None:
    slab = Atoms("Pt2H", [[0, 0, 0], [2, 0, 0], [1, 1, 1.5]], cell=[4, 5, 15], pbc=[1, 1, 0])
    slab.set_tags([0, 1, 2])
    slab.set_constraint(FixAtoms([0, 1]))
    slab.calc = SinglePointCalculator(slab, energy=-3.25, forces=np.ones((3, 3)))
    before = read(write_with_ase(tmp_path / "slab.db", [slab]))
    assert FORMAT.write is not None
    FORMAT.write(tmp_path / "written.db", before)
    (after,) = read(tmp_path / "written.db")
    assert format_frame(after) == format_frame(before[0])
    assert after.atoms.constraints[0].index.tolist() == [0, 1]


def test_a_writer_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, molecules: list[Atoms]
) -> None:
    path = write_with_ase(tmp_path / "x.db", molecules)
    content = path.read_bytes()
    structures = read(path)

    def fail() -> Any:
        yield structures[0]
        raise DataSetError("the source broke")

    assert FORMAT.write is not None
    with pytest.raises(DataSetError, match="the source broke"):
        FORMAT.write(path, fail())
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["x.db"]


def test_info_that_cannot_be_held_is_left_out_by_name(
    tmp_path: Path, molecules: list[Atoms]
) -> None:
    path = write_with_ase(tmp_path / "x.db", molecules)
    structures = read(path)
    structures[1].atoms.info |= {"odd": object(), "kept": "two\nlines", "nothing": None}
    assert FORMAT.write is not None
    with pytest.warns(LabelwiseWarning, match="info 'odd' of 1 structure") as said:
        FORMAT.write(path, structures)
    assert len(said) == 1
    found = read(path)[1].atoms.info
    assert found["kept"] == "two\nlines"
    assert "odd" not in found


def test_no_structures_are_a_database_without_rows(tmp_path: Path) -> None:
    assert FORMAT.write is not None
    assert FORMAT.write(tmp_path / "x.db", []) == 0
    assert read(tmp_path / "x.db") == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    assert FORMAT.write is not None
    with pytest.raises(ArgumentError, match=r"its suffix must be \.db"):
        FORMAT.write(tmp_path / "x.json", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        FORMAT.write(tmp_path / "file" / "x.db", [])


def test_paths_are_recognised(tmp_path: Path, database_file: Path) -> None:
    assert FORMAT.recognise(database_file)
    assert not FORMAT.recognise(database_file.parent)
    (tmp_path / "x.json").write_text('{"energy": 1}')
    (tmp_path / "x.aselmdb").write_text("")
    assert not FORMAT.recognise(tmp_path / "x.json")
    assert not FORMAT.recognise(tmp_path / "x.aselmdb")


@pytest.mark.parametrize("suffix", [".db", ".json"])
def test_labels_in_data_as_schnetpack_writes_them(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"set{suffix}"
    forces = np.arange(9.0).reshape(3, 3)
    with connect(path) as database:
        data = {"energy": np.array([-2081.0]), "forces": forces, "dipole_moment": np.ones(3)}
        database.write(molecule("H2O"), data=data)
    with FORMAT.open(path) as opened:
        assert len(list(opened.iter_entries())) == 1
        (found,) = opened.iter_structures()
    assert found.atoms.info["REF_energy"] == -2081.0
    assert np.array_equal(found.atoms.arrays["REF_forces"], forces)
    assert not {"energy", "forces"} & {*found.atoms.info}
