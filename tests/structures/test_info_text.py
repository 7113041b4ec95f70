"""Info and arrays survive being written and read, or are left out by name."""

from __future__ import annotations

import string
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.spacegroup import crystal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelwise.errors import LabelwiseWarning
from labelwise.structures import get_labels, read_structures, write_structures
from labelwise.structures.info_text import fill_empty_values, is_same_value

KEPT: list[Any] = [
    "",
    " ",
    " both ends ",
    "two\nlines\n",
    "carriage\rreturn",
    "a\ttab",
    "C:\\calc\\run 1",
    "back\\",
    'say "hi"',
    "it's",
    "[1] {2} (3)",
    "a=b",
    "a= b=c",
    "T",
    "F",
    "true",
    "007",
    "1e5",
    "-3.5",
    "1 2 3",
    "1,2",
    "T F",
    ",",
    "nan",
    "inf",
    "None",
    "_JSON [1]",
    "_JSON nonsense",
    "été ångström 水",
    "line\u2028separator\x85and\x0bmore",
    "\ud800",
    "\x00",
    np.str_("42"),
    None,
    True,
    False,
    np.bool_(True),
    0,
    -7,
    10**30,
    np.int8(3),
    np.uint64(2**63),
    0.1,
    -0.0,
    1e300,
    float("nan"),
    float("-inf"),
    np.float32(0.1),
    np.array(2.5),
    np.array("0-d"),
    np.array([]),
    np.array([1.5]),
    np.array([7]),
    np.array([True]),
    np.array([1, 2, 3]),
    np.array([0.1, np.nan]),
    np.array([0.1, 0.2], dtype=np.float32),
    np.array([True, False]),
    np.array([2**63], dtype=np.uint64),
    np.arange(9).reshape(3, 3),
    np.zeros((3, 0)),
    np.array(["a", "b c", ""]),
    np.array([1, "a", None], dtype=object),
    [],
    (),
    {},
    [1.0],
    [1, 2.5],
    (1, 2),
    ["a", "T", ""],
    ["a", 1, None],
    {"a": {"b": [1, None, "x\ny"]}, "": 1},
    [{"a": 1}, {"b": []}],
    {"ragged": [[1], [1, 2]]},
]
LOST: list[Any] = [
    b"bytes",
    object(),
    1j,
    np.array([1j]),
    {1, 2},
    {1: "not text"},
    [[1], [1, 2]],
    ["a", [True]],
    np.zeros((0, 3)),
    np.datetime64("2020-01-01"),
    np.array([b"a"]),
]


def labelled(atoms: Atoms, before: dict[Any, Any]) -> Atoms:
    """Return a structure with labels behind other info: what is misread swallows them."""
    copy = atoms.copy()
    copy.info = {**before, "REF_energy": -1.5, "last": "word"}
    copy.arrays["REF_forces"] = np.ones((len(atoms), 3))
    return copy


def is_text(value: Any) -> bool:
    return isinstance(np.asarray(value, object).tolist(), str)


def read_both(path: Path) -> list[Atoms]:
    """Read the one structure of a file with Labelwise and with ASE."""
    return [*read_structures(path), *read(path, ":")]


@pytest.mark.parametrize("value", KEPT, ids=repr)
def test_values_come_back(tmp_path: Path, water: Atoms, value: Any) -> None:
    path = tmp_path / "out.extxyz"
    write_structures(path, [labelled(water, {"key": value}), water])
    assert len(read_structures(path)) == 2
    for found in (read_structures(path)[0], read(path, 0)):
        assert is_same_value(value, found.info["key"])
        assert isinstance(found.info["key"], str) == isinstance(
            np.asarray(value, object).tolist(), str
        )
        assert set(found.info) == {"key", "REF_energy", "last"}
        assert get_labels(found, "here").energy == -1.5


@pytest.mark.parametrize("value", LOST, ids=lambda value: type(value).__name__)
def test_other_values_are_left_out_by_name(tmp_path: Path, water: Atoms, value: Any) -> None:
    path = tmp_path / "out.extxyz"
    structure = labelled(water, {"key": value})
    with pytest.warns(LabelwiseWarning, match=r"info 'key' of 3 structures") as said:
        write_structures(path, [structure, water, structure, structure])
    assert len(said) == 1
    for frames in (read_structures(path), read(path, ":")):
        assert [set(atoms.info) for atoms in frames] == [
            {"REF_energy", "last"},
            set(),
            {"REF_energy", "last"},
            {"REF_energy", "last"},
        ]
        assert get_labels(frames[0], "here").energy == -1.5


@pytest.mark.parametrize(
    "key", ["a b", "a=b", 'a"b', "it's", "a\\b", "[x]", "é", "12", "T", "a\tb", "uid", "lattice"]
)
def test_keys_come_back(tmp_path: Path, water: Atoms, key: str) -> None:
    path = tmp_path / "out.extxyz"
    write_structures(path, [labelled(water, {key: "some text"})])
    for found in read_both(path):
        assert found.info[key] == "some text"
        assert get_labels(found, "here").energy == -1.5


@pytest.mark.parametrize(
    "key", ["", "a\nb", 1, ("a", "b"), None, "Lattice", "Properties", "pbc", b"x"], ids=repr
)
def test_other_keys_are_left_out_by_name(tmp_path: Path, water: Atoms, key: Any) -> None:
    path = tmp_path / "out.extxyz"
    with pytest.warns(LabelwiseWarning, match="left out"):
        write_structures(path, [labelled(water, {key: "1 0 0 0 1 0 0 0 1"})])
    for found in read_both(path):
        assert found == water
        assert set(found.info) == {"REF_energy", "last"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    info=st.dictionaries(
        st.text(alphabet=string.ascii_letters + "_ ='\"é", min_size=1, max_size=5).map(
            "k{}".format
        ),
        st.one_of(
            st.text(max_size=12),
            st.text(alphabet=string.digits + "eTF=\"'\\{}[], \n\t", max_size=9),
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.lists(st.one_of(st.floats(), st.text(max_size=3)), max_size=3),
        ),
        max_size=4,
    )
)
def test_any_text_comes_back(tmp_path: Path, water: Atoms, info: dict[str, Any]) -> None:
    path = tmp_path / "out.extxyz"
    write_structures(path, [labelled(water, info)])
    for found in read_both(path):
        assert set(found.info) == {*info, "REF_energy", "last"}
        assert all(is_same_value(value, found.info[key]) for key, value in info.items())


def test_ordinary_files_are_those_that_ase_writes(tmp_path: Path, water: Atoms) -> None:
    atoms = labelled(water, {"name": "md run 7", "n": 3, "x": 0.1, "done": True, "v": [1.0, 2.0]})
    atoms.info |= {"virial": np.arange(9.0).reshape(3, 3), "box": np.arange(4), "s": 'a "b"'}
    atoms.set_tags([0, 1, 2])
    atoms.calc = SinglePointCalculator(
        atoms, energy=-2.0, forces=np.ones((3, 3)), stress=np.arange(6.0), dipole=np.ones(3)
    )
    structures = [atoms, crystal("Si", [(0, 0, 0)], spacegroup=227, cellpar=[5] * 3 + [90] * 3)]
    write_structures(tmp_path / "ours.extxyz", structures)
    write(tmp_path / "theirs.extxyz", structures)
    assert (tmp_path / "ours.extxyz").read_text() == (tmp_path / "theirs.extxyz").read_text()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("words", np.array(["a b", "", "c"])),
        ("empty", np.array(["", "", ""])),
        ("bytes", np.array([b"a", b"b", b"c"])),
        ("complex", np.ones(3) * 1j),
        ("tensors", np.ones((3, 3, 3))),
        ("nothing", np.ones((3, 0))),
        ("large", np.array([2**40, 1, 2])),
        ("objects", np.array([1, "a", None], dtype=object)),
        ("a name", np.ones(3)),
        ("a:b", np.ones(3)),
        ("", np.ones(3)),
        ("Z", np.ones(3, dtype=int)),
        ("pos0", np.ones(3)),
        ("species", np.array(["a", "b", "c"])),
        ("move_mask", np.ones(3, dtype=bool)),
    ],
)
def test_arrays_that_are_no_columns_are_left_out_by_name(
    tmp_path: Path, water: Atoms, name: str, values: np.ndarray
) -> None:
    path = tmp_path / "out.extxyz"
    atoms = labelled(water, {})
    atoms.arrays[name] = values
    with pytest.warns(LabelwiseWarning, match=f"array {name!r} of 1 structure"):
        write_structures(path, [atoms])
    assert atoms.arrays[name] is values
    for found in read_both(path):
        assert found == water
        assert set(found.arrays) == {"numbers", "positions", "REF_forces"}


@pytest.mark.parametrize(
    "values",
    [
        np.array(["C1", "été", "[x]"]),
        np.array(["a", "b", "c"], dtype=object),
        np.array([-5, 2**31 - 1, 0]),
        np.array([1, 2, 3], dtype=np.uint8),
        np.array([True, False, True]),
        np.array([[True, False]] * 3),
        np.array([0.5, np.nan, np.inf]),
        np.array([[0.5, 1.5]] * 3, dtype=np.float32),
    ],
    ids=lambda values: f"{values.dtype}{values.shape}",
)
def test_arrays_come_back(tmp_path: Path, water: Atoms, values: np.ndarray) -> None:
    path = tmp_path / "out.extxyz"
    atoms = labelled(water, {})
    atoms.arrays["array"] = values
    write_structures(path, [atoms])
    for found in read_both(path):
        assert is_same_value(values, found.arrays["array"])


def test_results_of_a_calculator(tmp_path: Path, water: Atoms) -> None:
    water.calc = SinglePointCalculator(water, forces=np.ones((3, 3)), dipole=np.arange(3.0))
    water.calc.results |= {
        "energy": None,
        "free_energy": -1.0,
        "bandgap": 3.0,
        "born_effective_charges": np.ones((3, 3, 3)),
    }
    with pytest.warns(LabelwiseWarning, match="left out") as said:
        write_structures(tmp_path / "out.extxyz", [water])
    assert "result 'bandgap'" in str(said[0].message)
    assert "array 'born_effective_charges'" in str(said[0].message)
    for found in read_both(tmp_path / "out.extxyz"):
        assert set(found.calc.results) == {"forces", "dipole", "free_energy"}
        assert found.info == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [("dipole", "text"), ("stress", 3.0), ("virial", np.ones(6)), ("stress", "text")],
)
def test_what_ase_would_choke_on_is_left_out(
    tmp_path: Path, water: Atoms, key: str, value: Any
) -> None:
    with pytest.warns(LabelwiseWarning, match=f"info {key!r}"):
        write_structures(tmp_path / "out.extxyz", [labelled(water, {key: value})])
    for found in read_both(tmp_path / "out.extxyz"):
        assert get_labels(found, "here").energy == -1.5


def test_a_voigt_stress_in_info_is_a_stress(tmp_path: Path, water: Atoms) -> None:
    write_structures(tmp_path / "out.extxyz", [labelled(water, {"stress": [1, 2, 3, 4, 5, 6]})])
    for found in read_both(tmp_path / "out.extxyz"):
        assert found.calc.results["stress"].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('comment="" REF_energy=-137.9', {"comment": "", "REF_energy": -137.9}),
        ("comment='' REF_energy=-137.9", {"comment": "", "REF_energy": -137.9}),
        ("comment= REF_energy=-137.9", {"comment": "", "REF_energy": -137.9}),
        ("comment={} REF_energy=-137.9", {"comment": "", "REF_energy": -137.9}),
        ('a="" b="" REF_energy=1.5 c=', {"a": "", "b": "", "REF_energy": 1.5, "c": ""}),
        ('comment="" flag REF_energy=2', {"comment": "", "flag": True, "REF_energy": 2}),
        ('q="\\"" comment="" REF_energy=2', {"q": '"', "comment": "", "REF_energy": 2}),
        ('q="a= b=c" REF_energy=2', {"q": "a= b=c", "REF_energy": 2}),
        ("a = 1 REF_energy = 2", {"a": 1, "REF_energy": 2}),
        ("a= 1 REF_energy= 2", {"a": 1, "REF_energy": 2}),
        ("a=b=c REF_energy=2", {"a": "b=c", "REF_energy": 2}),
    ],
)
def test_empty_values_swallow_nothing(tmp_path: Path, line: str, expected: dict[str, Any]) -> None:
    path = tmp_path / "in.extxyz"
    path.write_text(f"1\nProperties=species:S:1:pos:R:3 {line}\nH 0 0 0\n")
    assert read_structures(path)[0].info == expected


@pytest.mark.parametrize("line", ['a="b c" d=1', "", "a = b", "free text", 'a="=" b', "a=b=c"])
def test_lines_without_empty_values_stay(line: str) -> None:
    assert fill_empty_values(line) is line


def test_nothing_is_said_of_what_is_kept(tmp_path: Path, water: Atoms) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_structures(tmp_path / "out.extxyz", [labelled(water, {"a": [1, "b", {}]})])
