"""Arrays of a structure as columns of extended XYZ: which can be read again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from ase.io.extxyz import PROPERTY_NAME_MAP, key_val_str_to_dict

#: Columns of the frame itself, and words that readers take for them.
_OWN_COLUMNS = frozenset({"Z", "species", "symbols", "pos", "move_mask"})
#: What every structure has; ASE writes them as symbols and positions.
_ALWAYS = ("numbers", "positions")
#: ASE reads columns of integers as so many bits.
_INT32 = np.iinfo(np.int32)
_SYMBOLS = "species:S:1:pos:R:3"


def make_columns(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
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
