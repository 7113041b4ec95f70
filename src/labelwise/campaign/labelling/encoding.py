"""Structures as plain data for JSON: exact, and readable without this library.

``encode_structure`` keeps what decides a label. ``encode_extra`` keeps the rest, fixed atoms, tags
and other labels, so that a batch is as complete as the pool that it came from: an unrelaxed slab is
relaxed with the same atoms fixed.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian, dict2constraint
from ase.io import jsonio

from labelwise.structures.info_text import is_same_value

#: Arrays beside elements and positions that a calculation may depend on.
_ARRAYS = ("initial_charges", "initial_magmoms")
_ENCODED = ("numbers", "positions", *_ARRAYS)
#: Results that the label replaces.
_LABELS = ("energy", "free_energy", "forces")
#: Parts of what is extra, and where records of version 0.1 have them: as lists, and as text.
_FORMER = {
    "info": ("info_arrays", "other_info"),
    "arrays": ("arrays", "other_arrays"),
    "results": ("results", ""),
}


def encode_structure(atoms: Atoms) -> dict[str, Any]:
    """Return a structure as plain data.

    Elements, positions, cell, periodic directions, initial charges and magnetic moments,
    and the info keys that are words or finite numbers. Python's JSON prints floats with
    the digits that bring back the same bits.
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
    info = plain_info(atoms)
    if info:
        encoded["info"] = info
    return encoded


def encode_extra(
    atoms: Atoms, *, left_out: Container[str] = (), with_results: bool = False
) -> dict[str, Any]:
    """Return as plain data what ``encode_structure`` leaves out, as far as ASE's JSON holds it.

    Args:
        atoms: The structure; not modified.
        left_out: Info keys and arrays that are not wanted, such as those of the labels.
        with_results: Keep stored results of a calculator, such as a stress, beside energy and
            forces: they belong to the structure if its label is one that was there.

    Returns:
        The key ``extra``, if there is any: info, arrays, results and constraints (``FixAtoms`` and
        ``FixCartesian``, which extended XYZ holds), each value as text.
    """
    plain = plain_info(atoms)
    results = (getattr(atoms.calc, "results", None) or {}) if with_results else {}
    fixing: list[Any] = [
        each for each in atoms.constraints if isinstance(each, FixAtoms | FixCartesian)
    ]
    parts = {
        "info": {key: value for key, value in atoms.info.items() if key not in plain},
        "arrays": {key: value for key, value in atoms.arrays.items() if key not in _ENCODED},
        "results": {
            key: value
            for key, value in results.items()
            if key in all_properties and key not in _LABELS
        },
        "constraints": {str(number): each.todict() for number, each in enumerate(fixing)},
    }
    extra = {name: _as_texts(values, left_out) for name, values in parts.items()}
    extra = {name: texts for name, texts in extra.items() if texts}
    return {"extra": extra} if extra else {}


def decode_structure(encoded: Mapping[str, Any]) -> Atoms:
    """Return the structure of ``encode_structure``, with what is extra in the same record.

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
    atoms.info.update(_decode_part(encoded, "info"))
    for name, values in _decode_part(encoded, "arrays").items():
        atoms.set_array(name, np.asarray(values))
    results = _decode_part(encoded, "results")
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    constraints = [*encoded.get("constraints", ()), *_decode_part(encoded, "constraints").values()]
    if constraints:
        atoms.set_constraint([dict2constraint(each) for each in constraints])
    return atoms


def _decode_part(encoded: Mapping[str, Any], part: str) -> dict[str, Any]:
    lists, texts = _FORMER.get(part, ("", ""))
    found = {key: np.asarray(value)[()] for key, value in encoded.get(lists, {}).items()}
    for held in (encoded.get(texts, {}), encoded.get("extra", {}).get(part, {})):
        found |= {key: jsonio.decode(text) for key, text in held.items()}
    return found


def _as_texts(values: Mapping[Any, Any], left_out: Container[str]) -> dict[str, str]:
    """Return ASE's JSON of each value that it brings back."""
    found = {}
    for key, value in values.items():
        if key in left_out or not isinstance(key, str):
            continue
        is_words = isinstance(value, np.ndarray) and value.dtype.kind == "U"
        try:
            text = jsonio.encode(value.tolist() if is_words else value)
            comes_back = is_same_value(jsonio.decode(text), value)
        except (TypeError, ValueError):  # an object that ASE's JSON does not know
            continue
        if comes_back:
            found[key] = text
    return found


def plain_info(atoms: Atoms) -> dict[str, str | bool | int | float]:
    """Return the entries of a structure's info that are words or finite numbers."""
    plain = {str(key): _plain(value) for key, value in atoms.info.items()}
    return {key: value for key, value in plain.items() if value is not None}


def _plain(value: Any) -> str | bool | int | float | None:
    """Return a value that JSON can hold, or None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | bool | int) else None
