"""Frames written by our own code are what ASE reads."""

from __future__ import annotations

import io
import string
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io.extxyz import read_xyz
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import DataSetError
from labelwise.structures.datasets.base import (
    Entry,
    LabelledStructure,
    make_structure,
)
from labelwise.structures.datasets.frame_text import format_frame

reals = st.floats(-1e3, 1e3, allow_subnormal=False)
texts = st.one_of(
    st.text(max_size=12),
    st.text(alphabet=string.ascii_letters + string.digits + "._/@ =\"'\\{}[],\n\t", max_size=12),
    st.sampled_from(["T", "F", "true", "nan", "inf", "12", "1e5", "1 2 3", "_JSON [1]", "", " "]),
)
keys = st.text(alphabet=string.ascii_lowercase + "_", min_size=1, max_size=8).map("k_{}".format)
values = st.one_of(
    texts, st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, width=64)
)


def read_back(structure: LabelledStructure) -> Atoms:
    return next(iter(read_xyz(io.StringIO(format_frame(structure)), 0)))


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(1, 5))
    triples = st.lists(st.tuples(reals, reals, reals), min_size=n, max_size=n)
    cell = draw(st.one_of(st.none(), st.lists(reals, min_size=9, max_size=9)))
    family = st.one_of(st.none(), texts)
    return {
        "entry": (0, draw(texts), draw(family), draw(st.integers(0, 9))),
        "numbers": draw(st.lists(st.integers(1, 118), min_size=n, max_size=n)),
        "positions": draw(triples),
        "energy": draw(reals),
        "forces": draw(triples),
        "cell": None if cell is None else np.reshape(cell, (3, 3)),
        "pbc": draw(st.tuples(st.booleans(), st.booleans(), st.booleans())),
        "tags": draw(st.one_of(st.none(), st.lists(st.integers(0, 2), min_size=n, max_size=n))),
        "fixed": draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=n, max_size=n))),
        "info": draw(st.dictionaries(keys, values, max_size=3)),
    }


@given(given_arguments=arguments())
def test_ase_reads_back_every_bit(given_arguments: dict[str, Any]) -> None:
    entry = Entry(*given_arguments.pop("entry"))
    structure = make_structure(entry, "drawn", **given_arguments)
    atoms, found = structure.atoms, read_back(structure)
    assert found.numbers.tolist() == atoms.numbers.tolist()
    for name in ("positions", "REF_forces"):
        assert np.array_equal(found.arrays[name], atoms.arrays[name])
    assert np.array_equal(found.cell.array, atoms.cell.array)
    assert found.pbc.tolist() == atoms.pbc.tolist()
    assert found.get_tags().tolist() == atoms.get_tags().tolist()
    fixed = [c.index.tolist() for c in atoms.constraints]
    assert [c.index.tolist() for c in found.constraints] == fixed
    for key, value in atoms.info.items():
        assert found.info[key] == value
        assert isinstance(found.info[key], str) == isinstance(value, str)
    assert set(found.info) == set(atoms.info)


def test_arrays_of_the_format_are_kept() -> None:
    stress = np.arange(9.0).reshape(3, 3)
    structure = make_structure(
        Entry(0, "a"),
        "a",
        numbers=[1],
        positions=[[0, 0, 0]],
        energy=-13.6,
        forces=[[0, 0, 0]],
        info={"REF_stress": stress, "bond_orders": [0.25], "charges": [0.5], "a b": 1},
    )
    found = read_back(structure)
    assert np.array_equal(found.info["REF_stress"], stress)
    assert np.array_equal(np.atleast_1d(found.info["bond_orders"]), [0.25])
    # These would be taken for a calculator's, or be no key at all.
    assert np.array_equal(np.atleast_1d(found.info["info_charges"]), [0.5])
    assert found.info["info_a_b"] == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"numbers": [0, 1]}, "atomic numbers"),
        ({"numbers": [1.5, 1]}, "not integers"),
        ({"numbers": []}, "shape"),
        ({"positions": [[0, 0, 0]]}, "positions: shape"),
        ({"positions": [[0, 0, np.nan], [0, 0, 1]]}, "positions: not finite"),
        ({"forces": [["x", 0, 0], [0, 0, 0]]}, "not numbers"),
        ({"forces": [[2500.0, 0, 0], [0, 0, 0]]}, "another unit"),
        ({"energy": np.inf}, "energy: not finite"),
        ({"tags": [1]}, "tags: shape"),
        ({"fixed": [True]}, "fixed atoms: shape"),
        ({"cell": [1, 2, 3]}, "cell: shape"),
    ],
)
def test_what_is_wrong_is_said(changed: dict[str, object], said: str) -> None:
    sound = {
        "numbers": [1, 1],
        "positions": np.eye(2, 3),
        "energy": -27.0,
        "forces": np.zeros((2, 3)),
    }
    with pytest.raises(DataSetError, match=said) as caught:
        make_structure(Entry(0, "a"), "file@7", **{**sound, **changed})  # type: ignore[arg-type]
    assert str(caught.value).startswith("file@7")
