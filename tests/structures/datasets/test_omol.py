from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength
from ase.db import connect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelwise.errors import (
    ArgumentError,
    DataSetError,
    LabelwiseWarning,
    MissingDependencyError,
    WriteError,
)
from labelwise.structures.aselmdb import AselmdbRows, decode_value, restore, write_rows
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.datasets.frame_text import format_frame
from labelwise.structures.datasets.omol import FORMAT, name_subset, parse_source
from labelwise.structures.extxyz import parse_frame

# Total energies of all electrons, roughly, eV.
ENERGIES = {"H2O": -2079.6, "CH4": -1102.3, "CH3OH": -3150.2, "NH3": -1539.1, "C2H6": -2172.8}
SOURCES = [
    ("CH3OH", "rgd", "rgd_uks/MR_693393_1_13_0_1/orca.tar.zst"),
    ("H2O", "reactivity", "pmechdb/r_12345_step3_0_1/orca.tar.zst"),
    ("CH4", "trans1x", "trans1x/trans1x_2157_90_25_0_1/orca.tar.zst"),
    ("NH3", "reactivity", "rmechdb/r_652_step10_0_2/orca.tar.zst"),
    ("C2H6", "spice", "spice/SPICE_X_0_1/orca.tar.zst"),
]


def labelled(name: str, seed: int = 0) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = molecule(name)
    atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    results = {"energy": ENERGIES[name] + rng.normal(), "forces": rng.normal(size=(len(atoms), 3))}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def omol_data(atoms: Atoms, data_id: str, source: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "source": source,
        "reference_source": None,
        "data_id": data_id,
        "charge": -1,
        "spin": 2,
        "num_atoms": len(atoms),
        "unrestricted": True,
        "nl_energy": rng.normal(),
        "homo_energy": rng.normal(size=1),
        "mulliken_charges": rng.normal(size=len(atoms)),
        "composition": atoms.get_chemical_formula(),
        "warnings": [],
    }


@pytest.fixture
def omol_rows() -> list[tuple[Atoms, dict[str, Any]]]:
    rows = []
    for seed, (name, data_id, source) in enumerate(SOURCES):
        atoms = labelled(name, seed)
        rows.append((atoms, omol_data(atoms, data_id, source, seed)))
    return rows


@pytest.fixture
def omol_file(tmp_path: Path, omol_rows: list[tuple[Atoms, dict[str, Any]]]) -> Path:
    """A file as ase-db-backends writes it."""
    return write_with_library(tmp_path / "omol" / "data0000.aselmdb", omol_rows)


def write_with_library(path: Path, rows: list[tuple[Atoms, dict[str, Any]]], **keys: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    with connect(path, type="aselmdb") as database:
        for atoms, data in rows:
            database.write(atoms, data=data, **keys)
    path.with_name(f"{path.name}-lock").unlink()
    return path


def read(path: Path, wanted: list[int] | None = None) -> list[LabelledStructure]:
    with FORMAT.open(path) as data:
        return list(data.iter_structures(wanted))


def change_row(path: Path, change: Callable[[dict[str, Any]], Any], key: str = "1") -> None:
    """Rewrite a row, or put bytes in its place."""
    environment = lmdb.open(str(path), subdir=False, lock=False)
    with environment.begin(write=True) as transaction:
        row = json.loads(zlib.decompress(transaction.get(key.encode())))
        changed = change(row)
        if not isinstance(changed, bytes):
            changed = zlib.compress(json.dumps(row if changed is None else changed).encode())
        transaction.put(key.encode(), changed)
    environment.close()


def test_reads_what_ase_db_backends_wrote_to_the_last_digit(
    omol_file: Path, omol_rows: list[tuple[Atoms, dict[str, Any]]]
) -> None:
    found = read(omol_file)
    assert len(found) == len(omol_rows)
    for structure, (atoms, data) in zip(found, omol_rows, strict=True):
        assert structure.atoms.info["REF_energy"] == atoms.calc.results["energy"]
        assert np.array_equal(structure.atoms.arrays["REF_forces"], atoms.calc.results["forces"])
        assert np.array_equal(structure.atoms.positions, atoms.positions)
        assert np.array_equal(structure.atoms.numbers, atoms.numbers)
        assert structure.atoms.calc is None
        info = structure.atoms.info
        assert np.array_equal(info["mulliken_charges"], data["mulliken_charges"])
        assert np.array_equal(info["homo_energy"], data["homo_energy"])
        assert info["nl_energy"] == data["nl_energy"]
        assert (info["charge"], info["spin"], info["unrestricted"]) == (-1, 2, True)
        assert "reference_source" not in info  # it was null


def test_entries_say_what_the_structures_say(omol_file: Path) -> None:
    with FORMAT.open(omol_file) as data:
        entries = list(data.iter_entries())
    assert entries == [structure.entry for structure in read(omol_file)]
    assert [entry.name for entry in entries] == [source for _, _, source in SOURCES]
    assert [entry.subset for entry in entries] == ["rgd", "pmechdb", "trans1x", "rmechdb", "spice"]
    assert [entry.family for entry in entries] == [
        "rgd_uks/MR_693393_1",
        "pmechdb/r_12345",
        "trans1x/trans1x_2157_90",
        "rmechdb/r_652",
        None,
    ]
    assert [entry.order for entry in entries] == [13, 3, 25, 10, None]
    assert (entries[0].n_atoms, entries[0].elements) == (6, (1, 6, 8))
    assert (entries[0].charge, entries[0].spin, entries[0].position) == (-1, 2, 0)


def test_a_frame_of_it_is_read_back_with_its_charges(omol_file: Path) -> None:
    for structure in read(omol_file):
        again = parse_frame(format_frame(structure), "frame")
        assert again.info["REF_energy"] == structure.atoms.info["REF_energy"]
        assert np.array_equal(
            again.info["mulliken_charges"], structure.atoms.info["mulliken_charges"]
        )


@pytest.mark.parametrize(
    ("source", "family", "order"),
    [
        ("rgd_uks/MR_693393_1_0_0_1/orca.tar.zst", "rgd_uks/MR_693393_1", 0),
        ("rgd_uks/MR_693393_1_18_0_1/orca.tar.zst", "rgd_uks/MR_693393_1", 18),
        ("rgd_uks/MR_693393_1_18_-1_2/orca.tar.zst", "rgd_uks/MR_693393_1", 18),
        ("rgd_uks/MR_693393_2_18_0_1/orca.tar.zst", "rgd_uks/MR_693393_2", 18),
        ("rgd_uks/MR_x_y_z/orca.tar.zst", None, None),
        ("rgd_uks/MR/orca.tar.zst", None, None),
        ("trans1x/trans1x_2157_90_0_0_1/orca.tar.zst", "trans1x/trans1x_2157_90", 0),
        ("trans1x/trans1x_2157/orca.tar.zst", None, None),
        ("pmechdb/r_12345_step3/orca.tar.zst", "pmechdb/r_12345", 3),
        ("omol/electrolytes/b/mol_0_1/step4/orca.tar.zst", "omol/electrolytes/b/mol_0_1", 4),
        ("ani1xbb/aniBB_022_163758_0_1/orca.tar.zst", None, None),
        ("spice/misstep3_0_1/orca.tar.zst", None, None),
        ("rgd_uks", None, None),
        ("", None, None),
    ],
)
def test_paths_are_found_in_sources(source: str, family: str | None, order: int | None) -> None:
    assert parse_source(source) == (family, order)


@pytest.mark.parametrize(
    ("data_id", "source", "subset"),
    [
        ("reactivity", "ani1xbb/aniBB_022_163758_0_1/orca.tar.zst", "ani1xbb"),
        ("reactivity", None, "reactivity"),
        ("trans1x", "trans1x/x", "trans1x"),
        ("elytes", "omol/electrolytes/x", "elytes"),
        (None, "pmechdb/x", None),
    ],
)
def test_only_reactivity_is_split(data_id: str | None, source: str | None, subset: str) -> None:
    assert name_subset(data_id, source) == subset


def test_deleted_rows_are_passed_over(omol_file: Path) -> None:
    before = read(omol_file)
    database = connect(omol_file, type="aselmdb")
    database.delete([2, 5])
    database.close()
    after = read(omol_file)
    assert [each.entry.name for each in after] == [before[i].entry.name for i in (0, 2, 3)]
    assert [each.entry.position for each in after] == [0, 1, 2]
    assert [each.entry.name for each in read(omol_file, [1])] == [before[2].entry.name]


def test_files_of_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        rows = [(labelled("H2O", 100 * number + i), {}) for i in range(3)]
        write_with_library(tmp_path / "own" / f"data{number}.aselmdb", rows)
    (tmp_path / "own" / "notes.txt").write_text("about them")
    found = read(tmp_path / "own")
    names = [f"data{number}/{i}" for number in (1, 2, 10) for i in (1, 2, 3)]
    assert [each.entry.name for each in found] == names
    assert [each.entry.position for each in found] == list(range(9))
    chosen = read(tmp_path / "own", [0, 4, 5, 8])
    assert [each.entry for each in chosen] == [found[i].entry for i in (0, 4, 5, 8)]
    assert [each.atoms.info["REF_energy"] for each in chosen] == [
        found[i].atoms.info["REF_energy"] for i in (0, 4, 5, 8)
    ]


def test_rows_that_are_not_wanted_are_not_decoded(omol_file: Path) -> None:
    change_row(omol_file, lambda _: b"no zlib", "3")
    assert [each.entry.position for each in read(omol_file, [1, 3])] == [1, 3]
    with pytest.raises(DataSetError, match="row 3: not compressed with zlib"):
        read(omol_file)


@pytest.mark.parametrize("wanted", [[5], [0, 99], [3, 1], [1, 1]])
def test_positions_that_are_not_there_or_not_ascending(omol_file: Path, wanted: list[int]) -> None:
    with pytest.raises(ArgumentError, match=r"position \d+ is wanted .* holds 5 structures"):
        read(omol_file, wanted)


def test_no_file_is_made_and_none_is_touched(omol_file: Path) -> None:
    folder = omol_file.parent
    content = omol_file.read_bytes()
    omol_file.chmod(0o444)
    folder.chmod(0o555)
    before = folder.stat().st_mtime_ns, omol_file.stat().st_mtime_ns
    try:
        assert len(read(omol_file)) == len(read(folder)) == 5
    finally:
        folder.chmod(0o755)
    assert [each.name for each in folder.iterdir()] == [omol_file.name]
    assert (folder.stat().st_mtime_ns, omol_file.stat().st_mtime_ns) == before
    assert omol_file.read_bytes() == content


def test_a_file_can_be_read_by_several_at_once(omol_file: Path) -> None:
    with FORMAT.open(omol_file) as first, FORMAT.open(omol_file.parent) as second:
        pairs = zip(first.iter_structures(), second.iter_entries(), strict=True)
        assert [structure.entry == entry for structure, entry in pairs] == [True] * 5


def test_own_databases_have_no_subset_and_keep_what_they_have(tmp_path: Path) -> None:
    slab = Atoms("Pt4H", [[0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0], [1, 1, 1.5]])
    slab.cell = [[4, 0, 0], [0.5, 4, 0], [0, 0, 15]]
    slab.pbc = (True, True, False)
    slab.set_tags([0, 0, 1, 1, 2])
    slab.set_constraint([FixAtoms([0, 2]), FixBondLength(3, 4)])
    forces = np.arange(15.0).reshape(5, 3)
    slab.calc = SinglePointCalculator(slab, energy=-3.25, forces=forces)
    path = write_with_library(
        tmp_path / "own" / "slabs.aselmdb",
        [(slab, {"family": "Pt", "site": "top"})],
        frame=4,
        site="hollow",
    )
    (structure,) = read(path)
    entry, atoms = structure.entry, structure.atoms
    assert (entry.name, entry.subset) == ("slabs/1", None)
    assert (entry.family, entry.order, entry.charge, entry.spin) == ("Pt", 4, None, None)
    assert atoms.info["REF_energy"] == -3.25  # no all-electron energy, and none is expected
    assert atoms.info["site"] == "hollow"
    assert np.array_equal(atoms.arrays["REF_forces"], forces)
    assert np.array_equal(atoms.cell.array, slab.cell.array)
    assert atoms.pbc.tolist() == [True, True, False]
    assert atoms.get_tags().tolist() == [0, 0, 1, 1, 2]
    fixed, bond = atoms.constraints
    assert fixed.index.tolist() == [0, 2]
    assert bond.todict() == slab.constraints[1].todict()


def test_own_labels_win_over_the_calculator(tmp_path: Path) -> None:
    atoms = labelled("H2O")
    own = {"REF_energy": -7.5, "REF_forces": np.ones((3, 3))}
    (structure,) = read(write_with_library(tmp_path / "x.aselmdb", [(atoms, own)]))
    assert structure.atoms.info["REF_energy"] == -7.5
    assert np.array_equal(structure.atoms.arrays["REF_forces"], np.ones((3, 3)))


def test_labels_of_two_kinds_are_not_mixed(tmp_path: Path) -> None:
    path = write_with_library(tmp_path / "x.aselmdb", [(labelled("H2O"), {"REF_energy": -7.5})])
    with pytest.raises(DataSetError, match="row 1 has no REF_forces"):
        read(path)


def drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        for key in keys:
            row.pop(key)

    return change


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        row[key] = value

    return change


def put_data(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        row["data"][key] = value

    return change


def nest(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


def scale_to_hartree(row: dict[str, Any]) -> None:
    row["energy"] /= 27.2114


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: b"x", "not compressed with zlib"),
        (lambda _: zlib.compress(b"{")[:-3], "not compressed with zlib"),
        (lambda _: zlib.compress(b'{"energy": '), "not JSON"),
        (lambda _: zlib.compress(b"\xff\xfe\xfa"), "not JSON"),
        (lambda _: zlib.compress(b"[" * 100_000), "not JSON"),
        (lambda _: [1, 2], "a list; expected a JSON object"),
        (drop("energy"), "has no energy; every row needs"),
        (drop("forces"), "has no forces; every row needs"),
        (drop("energy", "forces"), "has no energy and no forces"),
        (drop("numbers"), "has no numbers"),
        (drop("positions"), "has no positions"),
        (put("energy", "low"), "the energy is 'low'; expected a number"),
        (put("energy", [1.0, 2.0]), r"the energy is \[1.0, 2.0\]"),
        (put("energy", float("nan")), "the energy: not finite"),
        (put("forces", {"__ndarray__": [[5, 3], "float64", [0.0] * 15]}), r"shape \(5, 3\)"),
        (put("forces", {"__ndarray__": [[6, 3], "float64", [0.0] * 15]}), "not an array of ASE"),
        (put("forces", {"__ndarray__": [[6, 3], "float64", [float("inf")] * 18]}), "not finite"),
        (put("forces", {"__ndarray__": [[6, 3], "object", [0] * 18]}), "an array of object"),
        (put("forces", {"__ndarray__": 7}), "not an array of ASE"),
        (put("forces", [[0, 0], [0]]), "forces are not numbers"),
        (put("positions", {"__ndarray__": [[18], "float64", [0.0] * 18]}), r"shape \(18,\)"),
        (put("numbers", {"__ndarray__": [[1], "<U1", ["C"]]}), "atomic numbers are"),
        (put("numbers", []), r"expected \(0, 3\)"),
        (put("numbers", {"a": 1}), "atomic numbers are"),
        (put("numbers", [[1], [2, 3]]), "atomic numbers are"),
        (put("cell", [1, [2]]), "row 1: "),
        (put("pbc", [True]), "row 1: "),
        (put("tags", [[1], [2, 3]]), "row 1: "),
        (put("constraints", [{"name": "Gone", "kwargs": {}}]), "constraints cannot be decoded"),
        (
            put("constraints", [{"name": "FixAtoms", "kwargs": {"indices": [9]}}]),
            "fixed atoms: index 9",
        ),
        (put("forces", nest(700)), "forces: nested too deeply"),
        (put_data("notes", nest(700)), "data: nested too deeply"),
        (put("data", "text"), "data is 'text'; expected a JSON object"),
        (put_data("charge", 0.5), "charge is 0.5; expected an integer"),
        (put_data("charge", "+1"), r"charge is '\+1'; expected an integer"),
        (put_data("spin", 0), "spin is 0; it is the multiplicity"),
        (put_data("source", 7), "source is 7; expected text"),
        (put_data("data_id", ["rgd"]), "data_id is .*; expected text"),
        (put_data("family", [1]), "family is .*; expected text"),
        (scale_to_hartree, "looks like an energy in hartree"),
    ],
)
def test_damaged_rows_are_refused_by_file_and_row(
    omol_file: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    change_row(omol_file, change)
    with pytest.raises(DataSetError, match=message) as caught:
        read(omol_file)
    assert f"{omol_file}: row 1" in str(caught.value)


def test_one_row_without_labels_among_others_is_named(omol_file: Path) -> None:
    change_row(omol_file, drop("energy", "forces"), "4")
    with FORMAT.open(omol_file) as data:
        for road in (data.iter_entries, data.iter_structures):
            with pytest.raises(DataSetError, match=r"data0000.aselmdb: row 4 has no energy and no"):
                list(road())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("nextid", "many", "nextid is 'many'"),
        ("nextid", 7, "row 6 is not in the file"),
        ("deleted_ids", {}, "deleted_ids are"),
    ],
)
def test_wrong_lists_of_rows(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = tmp_path / "x.aselmdb"
    write_rows(path, [{"numbers": [1]}] * 5)
    change_row(path, lambda _: zlib.compress(json.dumps(value).encode()), key)
    with pytest.raises(DataSetError, match=message):
        rows = AselmdbRows(path)
        list(rows.iter_rows(rows.ids))


def test_other_lmdb_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.aselmdb"
    environment = lmdb.open(str(path), subdir=False, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"0", b"pickle")
    environment.close()
    with pytest.raises(DataSetError, match="nextid is not in the file"):
        read(path)


def test_files_that_are_not_lmdb_are_refused(tmp_path: Path) -> None:
    for name, content in (("a", b""), ("b", b"REF_energy=1\n" * 9999), ("c", bytes(9999))):
        path = tmp_path / f"{name}.aselmdb"
        path.write_bytes(content)
        with pytest.raises(DataSetError, match=f"{path} is not an LMDB file"):
            FORMAT.open(path)
    with pytest.raises(DataSetError, match=r"holds no \.aselmdb file"):
        FORMAT.open(tmp_path / "none")


TRUNCATE = """
import sys
from pathlib import Path
from labelwise.errors import DataSetError
from labelwise.structures.datasets.omol import FORMAT

path = Path(sys.argv[1])
content = path.read_bytes()
for n_bytes in sorted({*range(0, len(content), 1500), 100, 4096, 4200, len(content) - 1}):
    path.write_bytes(content[:n_bytes])
    try:
        list(FORMAT.open(path).iter_structures())
    except DataSetError as error:
        assert str(path) in str(error), error
    else:
        sys.exit(f"{n_bytes} bytes of {len(content)} were read")
print("refused")
"""


def test_truncated_files_are_refused_where_lmdb_would_crash(omol_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRUNCATE, str(omol_file)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "refused"), done.stderr


def test_extras_that_are_not_finite_are_kept(omol_file: Path) -> None:
    change_row(omol_file, put_data("homo_energy", [float("nan"), float("-inf")]))
    first = read(omol_file)[0]
    assert np.array_equal(first.atoms.info["homo_energy"], [np.nan, -np.inf], equal_nan=True)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_are_decoded_to_the_last_bit(values: list[float]) -> None:
    text = json.dumps({"__ndarray__": [[len(values)], "float64", values]})
    array = restore(decode_value(zlib.compress(text.encode()), "x"), "x")
    assert array.tobytes() == np.array(values).tobytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_bytes_of_a_value_never_surprise(omol_file: Path, data: st.DataObject) -> None:
    rows = AselmdbRows(omol_file)
    raw = bytearray(rows._get(b"1", "x"))
    rows.close()
    raw[data.draw(st.integers(2, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DataSetError):  # zlib has a checksum
        decode_value(bytes(raw), "x")


def test_ase_db_backends_reads_what_was_written(
    tmp_path: Path, omol_file: Path, omol_rows: list[tuple[Atoms, dict[str, Any]]]
) -> None:
    path = tmp_path / "written" / "data0000.aselmdb"
    assert FORMAT.write is not None
    assert FORMAT.write(path, read(omol_file)) == 5
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    database = connect(path, readonly=True, use_lock_file=False)
    assert database.ids == [1, 2, 3, 4, 5]
    for row, (atoms, data) in zip(database.select(), omol_rows, strict=True):
        again = row.toatoms()
        assert again.calc.results["energy"] == atoms.calc.results["energy"]
        assert np.array_equal(again.calc.results["forces"], atoms.calc.results["forces"])
        assert np.array_equal(again.positions, atoms.positions)
        assert np.array_equal(again.numbers, atoms.numbers)
        assert not again.pbc.any() and not again.cell.any()
        assert np.array_equal(row.data["mulliken_charges"], data["mulliken_charges"])
        kept = ("source", "data_id", "charge", "spin", "warnings", "composition", "num_atoms")
        assert [row.data[key] for key in kept] == [data[key] for key in kept]
    database.close()


def test_ase_db_backends_appends_to_what_was_written(tmp_path: Path, omol_file: Path) -> None:
    path = tmp_path / "written.aselmdb"
    assert FORMAT.write is not None
    FORMAT.write(path, read(omol_file))
    with connect(path, type="aselmdb") as database:
        assert database.write(labelled("H2O"), data={}) == 6
    assert [each.entry.name for each in read(path)][-1] == "written/6"


def test_the_written_file_is_read_as_it_was(tmp_path: Path, omol_file: Path) -> None:
    path = tmp_path / "written.aselmdb"
    assert FORMAT.write is not None
    before = read(omol_file)
    FORMAT.write(path, before)
    for old, new in zip(before, read(path), strict=True):
        assert new.entry == old.entry
        assert format_frame(new) == format_frame(old)


def test_cell_tags_and_constraints_are_written(tmp_path: Path) -> None:
    slab = Atoms("Pt2H", [[0, 0, 0], [2, 0, 0], [1, 1, 1.5]], cell=[4, 4, 15], pbc=[1, 1, 0])
    slab.set_tags([0, 1, 2])
    slab.set_constraint(FixAtoms([0, 1]))
    slab.calc = SinglePointCalculator(slab, energy=-3.25, forces=np.ones((3, 3)))
    before = read(write_with_library(tmp_path / "slabs.aselmdb", [(slab, {})]))
    path = tmp_path / "written.aselmdb"
    assert FORMAT.write is not None
    FORMAT.write(path, before)
    database = connect(path, readonly=True, use_lock_file=False)
    again = database.get(1).toatoms()
    database.close()
    assert again.constraints[0].index.tolist() == [0, 1]
    assert np.array_equal(again.cell.array, slab.cell.array)
    assert (again.pbc.tolist(), again.get_tags().tolist()) == ([True, True, False], [0, 1, 2])
    assert np.array_equal(again.calc.results["forces"], np.ones((3, 3)))
    (after,) = read(path)
    assert after.entry.name == "slabs/1"  # its name moved with it
    assert format_frame(after).replace(" source=slabs/1", "") == format_frame(before[0])


def test_the_map_grows_with_the_rows_and_the_file_is_no_larger(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "x.aselmdb"
    rows = [{"values": rng.normal(size=3000)} for _ in range(150)]
    assert write_rows(path, iter(rows)) == 150
    content = sum(8 * row["values"].size for row in rows)
    assert 3 * 2**20 < content < path.stat().st_size < 2 * content
    read_back = AselmdbRows(path)
    for (_, raw), row in zip(read_back.iter_rows(read_back.ids), rows, strict=True):
        assert np.array_equal(restore(raw["values"], "x"), row["values"])


def test_a_writer_that_fails_leaves_the_old_file_alone(tmp_path: Path, omol_file: Path) -> None:
    structures = read(omol_file)
    content = omol_file.read_bytes()

    def fail() -> Any:
        yield structures[0]
        raise DataSetError("the source broke")

    assert FORMAT.write is not None
    with pytest.raises(DataSetError, match="the source broke"):
        FORMAT.write(omol_file, fail())
    assert omol_file.read_bytes() == content
    assert [each.name for each in omol_file.parent.iterdir()] == [omol_file.name]


def test_info_that_cannot_be_held_is_left_out_by_name(omol_file: Path) -> None:
    structures = read(omol_file)
    structures[1].atoms.info |= {"odd": object(), "kept": "two\nlines", "nothing": None}
    assert FORMAT.write is not None
    with pytest.warns(LabelwiseWarning, match="info 'odd' of 1 structure") as said:
        FORMAT.write(omol_file, structures)
    assert len(said) == 1
    found = read(omol_file)[1].atoms.info
    assert found["kept"] == "two\nlines"
    assert "odd" not in found


def test_no_structures_are_a_file_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.aselmdb"
    assert FORMAT.write is not None
    assert FORMAT.write(path, []) == 0
    assert read(path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    assert FORMAT.write is not None
    with pytest.raises(ArgumentError, match=r"its suffix must be \.aselmdb"):
        FORMAT.write(tmp_path / "x.db", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        FORMAT.write(tmp_path / "file" / "x.aselmdb", [])


def test_paths_are_recognised(tmp_path: Path, omol_file: Path) -> None:
    assert FORMAT.recognise(omol_file)
    assert FORMAT.recognise(omol_file.parent)
    assert not FORMAT.recognise(tmp_path)
    (tmp_path / "x.db").write_text("")
    assert not FORMAT.recognise(tmp_path / "x.db")


def test_lmdb_is_asked_for(omol_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(MissingDependencyError, match=r"labelwise\[data\]"):
        read(omol_file)
    with pytest.raises(MissingDependencyError, match=r"writing \.aselmdb"):
        write_rows(omol_file, [])
