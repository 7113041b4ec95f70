from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
import pytest

from labelwise.errors import ArgumentError
from labelwise.pages.blob import encode_document
from labelwise.pages.document import (
    Document,
    Kind,
    NumberColumn,
    Section,
    Table,
    TableColumn,
)
from tests.pages.documents import make_document

HOSTILE = "</script><b>\u202e\udc80\x00{{data}}"


def decode(content: bytes) -> Any:
    """Read a blob as the page does, by the module's own description of the layout."""
    length = int.from_bytes(content[:4], "little")
    head = json.loads(content[4 : 4 + length], parse_constant=pytest.fail)
    arrays = [
        np.frombuffer(
            content, entry["dtype"], entry["length"], 4 + length + entry["offset"]
        ).reshape(entry["shape"])
        for entry in head["arrays"]
    ]
    return restore(head["document"], arrays)


def restore(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, list):
        return [restore(found, arrays) for found in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"array"}:
        return arrays[value["array"]]
    if value.keys() == {"number"}:
        return float(value["number"])
    return {key: restore(found, arrays) for key, found in value.items()}


def assert_same(expected: Any, found: Any) -> None:
    if is_dataclass(expected):
        assert found["is"] == type(expected).__name__
        for entry in fields(expected):
            assert_same(getattr(expected, entry.name), found[entry.name])
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(expected, found)
    elif isinstance(expected, tuple):
        assert len(expected) == len(found)
        for one, other in zip(expected, found, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float) and math.isnan(expected):
        assert found is None
    else:
        assert found == (expected.value if isinstance(expected, Enum) else expected)


def make_small(*cells: Any) -> Document:
    table = Table("t", "", tuple(TableColumn("") for _ in cells), (cells,))
    return Document(Kind.SELECTION, "", "", sections=(Section("s", "", (table,)),))


def test_everything_comes_back() -> None:
    document = make_document(text=HOSTILE)
    assert_same(document, decode(encode_document(document)))


def test_numbers_that_json_has_not() -> None:
    cells = (math.nan, math.inf, -math.inf, None, -0.0, 1e300)
    decoded = decode(encode_document(make_small(*cells)))
    row = decoded["sections"][0]["panels"][0]["rows"][0]
    assert row == [None, math.inf, -math.inf, None, 0.0, 1e300]


def test_same_document_same_bytes() -> None:
    assert encode_document(make_document()) == encode_document(make_document())


def test_arrays_are_aligned_for_every_length_of_text() -> None:
    for length in range(9):
        content = encode_document(make_document(text="x" * length))
        size = int.from_bytes(content[:4], "little")
        head = json.loads(content[4 : 4 + size])
        assert (4 + size) % 8 == 0
        assert all(entry["offset"] % 8 == 0 for entry in head["arrays"])


@pytest.mark.parametrize(
    ("given", "stored"),
    [("int64", "float64"), ("float16", "float32"), ("bool", "uint8"), (">f4", "float32")],
)
def test_types_that_javascript_lacks(given: str, stored: str) -> None:
    values = np.array([0, 1, 1]).astype(given)
    column = NumberColumn.__new__(NumberColumn)  # as a builder without checks could make it
    for name, value in (("name", "x"), ("values", values), ("unit", "")):
        object.__setattr__(column, name, value)
    found = decode(encode_document(make_small_with(column)))
    assert found["sections"][0]["panels"][0]["values"].dtype == np.dtype(stored)
    np.testing.assert_array_equal(found["sections"][0]["panels"][0]["values"], [0, 1, 1])


def make_small_with(panel: Any) -> Document:
    section = Section.__new__(Section)
    for name, value in (("name", "s"), ("title", ""), ("panels", (panel,)), ("text", ())):
        object.__setattr__(section, name, value)
    document = Document.__new__(Document)
    filled = {"kind": Kind.SELECTION, "title": "", "subtitle": "", "sections": (section,)}
    for entry in fields(Document):
        object.__setattr__(document, entry.name, filled.get(entry.name, ()))
    return document


def test_what_has_no_place_on_a_page_is_refused() -> None:
    with pytest.raises(ArgumentError, match="holds a complex, which has no place"):
        encode_document(make_small_with(1j))
