"""Writing structures as extended XYZ, with what the format cannot hold left out by name."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import (
    PROPERTY_NAME_MAP,
    key_val_str_to_dict,
    per_atom_properties,
    per_config_properties,
    write_xyz,
)
from ase.stress import voigt_6_to_full_3x3_stress

from labelwise.errors import WriteError
from labelwise.runtime.files import write_text
from labelwise.structures.fixed_atoms import list_unwritten
from labelwise.structures.info_text import format_entry
from labelwise.structures.left_out import LeftOut

#: Columns of the frame itself, and words that readers take for them.
_OWN_COLUMNS = frozenset({"Z", "species", "symbols", "pos", "move_mask"})
#: What every structure has; ASE writes them as symbols and positions.
_ALWAYS = ("numbers", "positions")
#: ASE reads columns of integers as so many bits.
_INT32 = np.iinfo(np.int32)
_SYMBOLS = "species:S:1:pos:R:3"


def write_structures(path: str | os.PathLike[str], structures: Iterable[Atoms]) -> None:
    """Write structures as extended XYZ, in one step.

    Info keys, arrays, cell, periodic directions, fixed atoms and stored results are kept;
    forces are written as stored, whatever the constraints. ASE prints real arrays with
    eight decimals. What extended XYZ cannot hold so that ASE reads it again is left out, as
    are other constraints.

    Args:
        path: Where to write; the suffix is not looked at.
        structures: What to write, in order; not modified.

    Example:
        >>> import labelwise as lw
        >>> from ase.build import molecule
        >>> lw.write_structures("two.extxyz", [molecule("H2O"), molecule("CH4")])
        >>> [len(atoms) for atoms in lw.read_structures("two.extxyz@:1")]
        [3]

    Raises:
        WriteError: A structure cannot be expressed in extended XYZ (names it), or the file
            cannot be written.

    Warns:
        LabelwiseWarning: Something was left out; names the keys, once for the file.
    """
    text = io.StringIO()
    left_out = LeftOut("extended XYZ")
    for number, atoms in enumerate(structures):
        try:
            text.write(_format_frame(atoms, left_out))
        except Exception as error:  # ASE raises whatever it stumbles on
            reason = str(error) or type(error).__name__
            raise WriteError(
                f"structure {number} of {path} cannot be written as extended XYZ ({reason})"
            ) from error
    write_text(path, text.getvalue())
    left_out.warn(path)


def _format_frame(atoms: Atoms, left_out: LeftOut) -> str:
    """Return a structure as a frame of extended XYZ."""
    info, arrays = _join_results(atoms, left_out)
    for kind in list_unwritten(atoms):
        left_out.note("constraint", kind)
    entries = []
    for key, value in info.items():
        entry = format_entry(key, value)
        if entry is None:
            left_out.note("info", key)
        else:
            entries.append(entry)
    columns = _make_columns(arrays)
    for name in arrays:
        if name not in columns:
            left_out.note("array", name)
    text = io.StringIO()
    write_xyz(text, _with_arrays(atoms, columns), write_info=False, write_results=False)
    if not entries:
        return text.getvalue()
    count, comment, lines = text.getvalue().split("\n", 2)
    head, _, periodic = comment.rpartition(" pbc=")
    return f"{count}\n{head} {' '.join(entries)} pbc={periodic}\n{lines}"


def _with_arrays(atoms: Atoms, arrays: dict[str, np.ndarray]) -> Atoms:
    """Return a structure with these arrays; it is not modified."""
    own = atoms.arrays
    if own.keys() == arrays.keys() and all(own[name] is arrays[name] for name in own):
        return atoms
    copy: Atoms = atoms.copy()
    copy.arrays = arrays
    return copy


def _join_results(atoms: Atoms, left_out: LeftOut) -> tuple[dict[Any, Any], dict[str, np.ndarray]]:
    """Return info and arrays with the results of a calculator, as ASE writes them.

    A result that an own key already names, for instance an energy, is passed over: the user's
    own key wins.
    """
    info, arrays = dict(atoms.info), dict(atoms.arrays)
    results = getattr(atoms.calc, "results", None) or {}
    for key, value in results.items():
        if value is None or key in atoms.info or key in atoms.arrays:
            continue
        if key in per_atom_properties:
            arrays[key] = np.asarray(value)
        elif key in per_config_properties:
            info[key] = value
        else:
            left_out.note("result", key)
    if _is_voigt(info.get("stress")):
        info["stress"] = voigt_6_to_full_3x3_stress(info["stress"])
    return info, arrays


def _is_voigt(stress: object) -> bool:
    """Return whether a value is a stress of six components."""
    if not isinstance(stress, np.ndarray | list | tuple) or len(stress) != 6:
        return False
    return all(isinstance(each, int | float | np.number) for each in stress)


def _make_columns(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays that ASE can write as columns and read again.

    Args:
        arrays: Arrays by name, (n_atoms, ...) each.

    Returns:
        Those of real numbers, truth values, integers of 32 bits and words (no blanks), one or
        two axes, under a name that no other column has; unsigned integers as signed ones.
    """
    taken = {"species", "pos0", "pos1", "pos2", "move_mask0", "move_mask1", "move_mask2"}
    kept = {}
    for name, array in arrays.items():
        if name in _ALWAYS:
            kept[name] = array
            continue
        fields = _name_fields(name, array)
        if not fields or not taken.isdisjoint(fields) or not _is_readable(array):
            continue
        taken |= fields
        kept[name] = array.astype(np.int64) if array.dtype.kind == "u" else array
    return kept


def _name_fields(name: object, array: np.ndarray) -> set[str]:
    """Return the names that ASE gives to the columns of an array; none if it cannot write it."""
    if not isinstance(name, str) or not _is_readable_name(name) or array.ndim not in (1, 2):
        return set()
    n_columns = 1 if array.ndim == 1 else array.shape[1]
    names = {name, PROPERTY_NAME_MAP.get(name, name)}
    if n_columns == 1:
        return names
    return {f"{each}{column}" for each in names for column in range(n_columns)}


@lru_cache(maxsize=1024)
def _is_readable_name(name: str) -> bool:
    """Return whether a column's name is read as it is written."""
    written = PROPERTY_NAME_MAP.get(name, name)
    if name in _OWN_COLUMNS or not written or ":" in written or written.split() != [written]:
        return False
    properties = f"{_SYMBOLS}:{written}:R:1"
    try:
        found = key_val_str_to_dict(f"Properties={properties} pbc=T")
        properties.encode()
    except Exception:  # ASE's parser raises whatever it stumbles on
        return False
    return bool(found == {"Properties": properties, "pbc": True})


def _is_readable(array: np.ndarray) -> bool:
    kind = array.dtype.kind
    if kind in "iu":
        return array.size == 0 or bool(array.min() >= _INT32.min and array.max() <= _INT32.max)
    return kind in "fb" or (kind in "OU" and all(map(_is_word, array.ravel().tolist())))


def _is_word(value: object) -> bool:
    """Return whether a value is text that fills one column of a line."""
    if not isinstance(value, str) or value.split() != [value]:
        return False
    try:
        value.encode()
    except UnicodeError:
        return False
    return True
