"""Labelled structures as extended XYZ, written fast and without loss.

ASE's writer takes about a millisecond a structure and rounds positions to 1e-8 Å.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import orjson
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.data import chemical_symbols

from labelwise.datasets.base import LabelledStructure
from labelwise.structures.fixed_atoms import free_atoms
from labelwise.structures.labels import DEFAULT_FORCES_KEY

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./+#@:()-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_NOT_OF_A_KEY = re.compile(r"[^A-Za-z0-9_.+-]")
#: What the frame itself says, and what ASE would move into a calculator.
_OWN_KEYS = frozenset({"Lattice", "Properties", "pbc", "cell", *all_properties})
#: Words that ASE reads as truth values or numbers.
_READ_AS_NUMBERS = {"t", "f", "true", "false", "nan", "inf", "infinity"}


def format_frame(structure: LabelledStructure) -> str:
    """Return a structure as a frame of extended XYZ, which ASE reads back bit by bit.

    Real numbers are written as the shortest text that gives the same float64. Fixed atoms are
    the column ``move_mask``, as ASE writes them. Info keys that would be taken for the frame's
    own (``pbc``, ``energy``) or are no words begin with ``info_``.
    """
    atoms = structure.atoms
    columns = ["species:S:1:pos:R:3"]
    parts = [[chemical_symbols[number] for number in atoms.numbers.tolist()]]
    parts.append(_real_rows(atoms.positions))
    if atoms.constraints:
        columns.append("move_mask:L:1")
        parts.append(["T" if is_free else "F" for is_free in free_atoms(atoms).tolist()])
    if "tags" in atoms.arrays:
        columns.append("tags:I:1")
        parts.append([str(tag) for tag in atoms.arrays["tags"].tolist()])
    columns.append(f"{DEFAULT_FORCES_KEY}:R:3")
    parts.append(_real_rows(atoms.arrays[DEFAULT_FORCES_KEY]))
    rows = "\n".join(map(" ".join, zip(*parts, strict=True)))
    head = f"{len(atoms)}\n{_format_cell(atoms)}Properties={':'.join(columns)}"
    keys = "".join(
        f" {_format_key(key)}={_format_value(value)}" for key, value in atoms.info.items()
    )
    return f'{head}{keys} pbc="{" ".join("FT"[int(flag)] for flag in atoms.pbc)}"\n{rows}\n'


def _real_rows(values: np.ndarray) -> list[str]:
    """Return a line of three numbers for each atom."""
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return text[2:-2].decode().replace("],[", "\n").replace(",", " ").split("\n")


def _format_cell(atoms: Atoms) -> str:
    cell = atoms.cell.array
    if not cell.any():
        return ""
    return f'Lattice="{" ".join(_real_rows(cell))}" '


def _format_key(key: Any) -> str:
    """Return a key, under another name where it would be taken for the frame's own."""
    text = str(key)
    if _KEY.fullmatch(text) and text not in _OWN_KEYS:
        return text
    return f"info_{_NOT_OF_A_KEY.sub('_', text)}"


def _format_value(value: Any) -> str:
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
