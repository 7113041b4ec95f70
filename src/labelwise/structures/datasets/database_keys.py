"""Info of a structure as the data of a database's row."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.db.core import bytes_to_object, object_to_bytes

from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.info_text import is_same_value
from labelwise.structures.labels import DEFAULT_ENERGY_KEY
from labelwise.structures.left_out import LeftOut


def keys_to_write(structure: LabelledStructure, left_out: LeftOut) -> dict[str, Any]:
    """Return what a database keeps of a structure's info: all but its label.

    Args:
        structure: The structure; not modified.
        left_out: Told of info that a database cannot hold.
    """
    kept = {}
    for key, value in structure.atoms.info.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if key == DEFAULT_ENERGY_KEY:
            continue
        if isinstance(key, str) and _is_storable(plain):
            kept[key] = plain
        else:
            left_out.note("info", key)
    return kept


def _is_storable(value: Any) -> bool:
    """Return whether ASE's encoder brings back a value as it was."""
    if isinstance(value, bool | int | float) or value is None:
        return True
    try:
        found = bytes_to_object(object_to_bytes({"value": value}))["value"]
        return is_same_value(value, found)
    except Exception:  # ASE raises whatever it stumbles on
        return False
