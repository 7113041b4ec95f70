"""Labelled structures as extended XYZ, written fast and without loss.

ASE's writer takes about a millisecond a structure and rounds positions to 1e-8 Å.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson
from ase.calculators.calculator import all_properties
from ase.data import chemical_symbols

from labelwise.errors import WriteError
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.info_text import format_json, is_word
from labelwise.structures.labels import DEFAULT_FORCES_KEY
from labelwise.structures.left_out import LeftOut

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_NOT_OF_A_KEY = re.compile(r"[^A-Za-z0-9_.+-]")
#: What the frame itself says, and what ASE would move into a calculator.
_OWN_KEYS = frozenset({"Lattice", "Properties", "pbc", "cell", *all_properties})
_MOVES = {True: " F", False: " T"}
_INT64 = range(-(2**63), 2**63)


def format_frame(structure: LabelledStructure, left_out: LeftOut | None = None) -> str:
    """Return a structure as a frame of extended XYZ, which ASE reads back bit by bit.

    Real numbers are written as the shortest text that gives the same float64. Fixed atoms are
    the column ``move_mask``, as ASE writes them. Info keys that would be taken for the frame's
    own (``pbc``, ``energy``) or are no words begin with ``info_``.

    Args:
        structure: The structure; not modified.
        left_out: Told of info that extended XYZ cannot hold, for which None raises, and of
            constraints other than fixed atoms.

    Raises:
        WriteError: Such info, and nobody to be told.
    """
    arrays = structure.arrays
    if left_out is not None:
        for kind in structure.list_unheld():
            left_out.note("constraint", kind)
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
    keys = "".join([_format_entry(key, value, left_out) for key, value in arrays.info.items()])
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


def _format_entry(key: Any, value: Any, left_out: LeftOut | None) -> str:
    text = _format_value(value)
    if text is not None:
        return f" {_format_key(key)}={text}"
    if left_out is None:
        raise WriteError(f"info {key!r} is {value!r:.40}, which extended XYZ cannot hold")
    left_out.note("info", key)
    return ""


def _format_value(value: Any) -> str | None:
    """Return a value, None if it cannot be held; text that is no word as JSON."""
    if type(value) is str and is_word(value):
        return value
    if type(value) is float or (type(value) is int and value in _INT64):
        return repr(value)
    if isinstance(value, bool | np.bool_):
        return "T" if value else "F"
    if isinstance(value, np.number):
        plain = value.item()
        return repr(plain) if type(plain) in (int, float) else None
    if isinstance(value, str) and is_word(value):
        return str.__str__(value)
    return format_json(value)
