"""Labelled structures as extended XYZ, written fast and without loss.

ASE's writer takes about a millisecond a structure and rounds positions to 1e-8 Å.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import orjson
from ase.calculators.calculator import all_properties
from ase.data import chemical_symbols

from labelwise.datasets.base import LabelledStructure
from labelwise.structures.labels import DEFAULT_FORCES_KEY

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./+#@:()-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_NOT_OF_A_KEY = re.compile(r"[^A-Za-z0-9_.+-]")
#: What the frame itself says, and what ASE would move into a calculator.
_OWN_KEYS = frozenset({"Lattice", "Properties", "pbc", "cell", *all_properties})
_MOVES = {True: " F", False: " T"}
#: Words that ASE reads as truth values or numbers.
_READ_AS_NUMBERS = {"t", "f", "true", "false", "nan", "inf", "infinity"}


def format_frame(structure: LabelledStructure) -> str:
    """Return a structure as a frame of extended XYZ, which ASE reads back bit by bit.

    Real numbers are written as the shortest text that gives the same float64. Fixed atoms are
    the column ``move_mask``, as ASE writes them. Info keys that would be taken for the frame's
    own (``pbc``, ``energy``) or are no words begin with ``info_``.
    """
    arrays = structure.arrays
    reals = np.concatenate([arrays.positions, arrays.forces], axis=1)
    species = [chemical_symbols[number] for number in arrays.numbers.tolist()]
    rows = [f"{name} {row}" for name, row in zip(species, _real_rows(reals), strict=True)]
    columns = f"species:S:1:pos:R:3:{DEFAULT_FORCES_KEY}:R:3"
    if arrays.fixed is not None:
        columns += ":move_mask:L:1"
        flags = arrays.fixed.tolist()
        rows = [row + _MOVES[is_fixed] for row, is_fixed in zip(rows, flags, strict=True)]
    if arrays.tags is not None:
        columns += ":tags:I:1"
        rows = [f"{row} {tag}" for row, tag in zip(rows, arrays.tags.tolist(), strict=True)]
    keys = "".join(
        [f" {_format_key(key)}={_format_value(value)}" for key, value in arrays.info.items()]
    )
    periodic = " ".join(["T" if flag else "F" for flag in arrays.pbc])
    head = f"{len(rows)}\n{_format_cell(arrays.cell)}Properties={columns}{keys}"
    lines = "\n".join(rows)
    return f'{head} pbc="{periodic}"\n{lines}\n'


def _real_rows(values: np.ndarray) -> list[str]:
    """Return a line of numbers for each row."""
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return text[2:-2].replace(b",", b" ").decode().split("] [")


def _format_cell(cell: np.ndarray | None) -> str:
    if cell is None or not cell.any():
        return ""
    return f'Lattice="{" ".join(_real_rows(cell))}" '


def _format_key(key: Any) -> str:
    """Return a key, under another name where it would be taken for the frame's own."""
    text = str(key)
    if _KEY.fullmatch(text) and text not in _OWN_KEYS:
        return text
    return f"info_{_NOT_OF_A_KEY.sub('_', text)}"


def _format_value(value: Any) -> str:
    if type(value) is str:
        return _format_text(value)
    if type(value) is int or type(value) is float:
        return repr(value)
    if isinstance(value, bool | np.bool_):
        return "T" if value else "F"
    if isinstance(value, str):
        return _format_text(value)
    if isinstance(value, int | float | np.number):
        return repr(value.item() if isinstance(value, np.number) else value)
    return _escape(f"_JSON {json.dumps(value, default=np.ndarray.tolist)}")


def _format_text(text: str) -> str:
    """Return a word as it stands, and as JSON what would be read back as something else."""
    if _WORD.fullmatch(text) and text.lower() not in _READ_AS_NUMBERS:
        return text
    return _escape(f"_JSON {json.dumps(text)}")


def _escape(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
