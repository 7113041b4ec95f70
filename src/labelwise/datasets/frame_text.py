"""Labelled structures as extended XYZ, written fast and without loss.

ASE's writer takes about a millisecond a structure and rounds positions to 1e-8 Å.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.data import chemical_symbols

from labelwise.datasets.base import LabelledStructure
from labelwise.structures.labels import DEFAULT_FORCES_KEY

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./+#@:()-]*")
#: Words that ASE reads as truth values or numbers.
_READ_AS_NUMBERS = {"t", "f", "true", "false", "nan", "inf", "infinity"}


def format_frame(structure: LabelledStructure) -> str:
    """Return a structure as a frame of extended XYZ, which ASE reads back bit by bit.

    Real numbers are written as the shortest text that gives the same float64. Fixed atoms are
    the column ``move_mask``, as ASE writes them.
    """
    atoms = structure.atoms
    columns = ["species:S:1:pos:R:3"]
    parts = [[chemical_symbols[number] for number in atoms.numbers.tolist()]]
    parts.append(_real_rows(atoms.positions))
    fixed = _fixed_mask(atoms)
    if fixed is not None:
        columns.append("move_mask:L:1")
        parts.append(["F" if is_fixed else "T" for is_fixed in fixed.tolist()])
    if "tags" in atoms.arrays:
        columns.append("tags:I:1")
        parts.append([str(tag) for tag in atoms.arrays["tags"].tolist()])
    columns.append(f"{DEFAULT_FORCES_KEY}:R:3")
    parts.append(_real_rows(atoms.arrays[DEFAULT_FORCES_KEY]))
    rows = "\n".join(map(" ".join, zip(*parts, strict=True)))
    head = f"{len(atoms)}\n{_format_cell(atoms)}Properties={':'.join(columns)}"
    keys = "".join(f" {key}={_format_value(value)}" for key, value in atoms.info.items())
    return f'{head}{keys} pbc="{" ".join("FT"[int(flag)] for flag in atoms.pbc)}"\n{rows}\n'


def _fixed_mask(atoms: Atoms) -> np.ndarray | None:
    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mask[constraint.index] = True
    return mask if mask.any() else None


def _real_rows(values: np.ndarray) -> list[str]:
    return [f"{x!r} {y!r} {z!r}" for x, y, z in values.tolist()]


def _format_cell(atoms: Atoms) -> str:
    cell = atoms.cell.array
    if not cell.any():
        return ""
    return f'Lattice="{" ".join(map(repr, cell.ravel().tolist()))}" '


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
