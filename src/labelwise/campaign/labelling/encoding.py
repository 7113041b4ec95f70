"""Structures as plain data for JSON: exact, and readable without this library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms

#: Arrays beside elements and positions that a calculation may depend on.
_ARRAYS = ("initial_charges", "initial_magmoms")


def encode_structure(atoms: Atoms) -> dict[str, Any]:
    """Return a structure as plain data.

    Elements, positions, cell, periodic directions, initial charges and magnetic moments,
    and the info keys that are words or finite numbers. Python's JSON prints floats with
    the digits that bring back the same bits.

    Args:
        atoms: The structure; positions and cell in Å.
    """
    encoded: dict[str, Any] = {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
    }
    if atoms.cell.array.any() or atoms.pbc.any():
        encoded["cell"] = atoms.cell.array.tolist()
        encoded["pbc"] = atoms.pbc.tolist()
    for name in _ARRAYS:
        if name in atoms.arrays:
            encoded[name] = atoms.arrays[name].tolist()
    info = encode_info(atoms.info)
    if info:
        encoded["info"] = info
    return encoded


def encode_info(info: Mapping[Any, Any]) -> dict[str, str | bool | int | float]:
    """Return the entries of a structure's info that are words or finite numbers.

    Args:
        info: Keys and values; not modified.
    """
    plain = {str(key): _plain(value) for key, value in info.items()}
    return {key: value for key, value in plain.items() if value is not None}


def decode_structure(encoded: Mapping[str, Any]) -> Atoms:
    """Return the structure of ``encode_structure``; positions and cell in Å.

    Raises:
        KeyError: ``numbers`` or ``positions`` is missing.
    """
    atoms = Atoms(
        numbers=encoded["numbers"],
        positions=np.asarray(encoded["positions"], dtype=float).reshape(-1, 3),
        cell=encoded.get("cell"),
        pbc=encoded.get("pbc", False),
    )
    for name in _ARRAYS:
        if name in encoded:
            atoms.set_array(name, np.asarray(encoded[name], dtype=float))
    atoms.info.update(encoded.get("info", {}))
    return atoms


def _plain(value: Any) -> str | bool | int | float | None:
    """Return a value that JSON can hold, or None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | bool | int) else None
