"""A document as bytes: JSON for what is small, raw arrays for what is large.

Layout, little-endian::

    uint32          length of the JSON in bytes, spaces at its end included
    JSON            {"arrays": [{"dtype", "offset", "length", "shape"}, ...], "document": {...}}
    arrays          each at a multiple of eight bytes, counted from the end of the JSON

A dataclass is an object whose ``is`` names its class; an array is ``{"array": place}``; NaN
is ``null``, and an infinite number is ``{"number": "Infinity"}`` or its negative.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

from labelwise.errors import ArgumentError
from labelwise.pages.document import Document

_ALIGNMENT = 8
_AS_STORED = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")


def encode_document(document: Document) -> bytes:
    """Return a document as bytes, the same for the same document.

    Args:
        document: What a page shows; texts may hold anything, lone surrogates included.

    Raises:
        ArgumentError: The document holds something other than texts, numbers, arrays of
            them and the classes of ``document.py``.
    """
    arrays = _Arrays()
    plain = _to_plain(document, arrays)
    # ASCII, so that no text can break the encoding; allow_nan would write what is not JSON.
    text = json.dumps(
        {"arrays": arrays.table, "document": plain}, allow_nan=False, separators=(",", ":")
    ).encode("ascii")
    text += b" " * (-(len(text) + 4) % _ALIGNMENT)
    return b"".join([len(text).to_bytes(4, "little"), text, *arrays.parts])


class _Arrays:
    """Arrays laid out one behind another."""

    def __init__(self) -> None:
        self.table: list[dict[str, Any]] = []
        self.parts: list[bytes] = []
        self._end = 0

    def add(self, array: Any) -> int:
        """Append an array and return its place."""
        stored = _as_stored(array)
        content = stored.tobytes()
        self.table.append(
            {
                "dtype": stored.dtype.name,
                "offset": self._end,
                "length": int(stored.size),
                "shape": list(stored.shape),
            }
        )
        padded = content + b"\0" * (-len(content) % _ALIGNMENT)
        self.parts.append(padded)
        self._end += len(padded)
        return len(self.table) - 1


def _as_stored(array: Any) -> Any:
    """Return numbers in a type that JavaScript has, little-endian."""
    if array.dtype.name in _AS_STORED:
        kind = array.dtype
    elif array.dtype.kind == "b":
        kind = np.dtype(np.uint8)
    elif array.dtype.kind == "f":
        kind = np.dtype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    else:  # 64-bit whole numbers; exact up to 2^53
        kind = np.dtype(np.float64)
    return np.ascontiguousarray(array, dtype=kind.newbyteorder("<"))


def _to_plain(value: Any, arrays: _Arrays) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return {"is": type(value).__name__} | {
            name: _to_plain(found, arrays) for name, found in named.items()
        }
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": arrays.add(value)}
    if isinstance(value, (list, tuple)) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "UO"
    ):
        return [_to_plain(found, arrays) for found in value]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        sign = "-" if value < 0 else ""
        return None if math.isnan(value) else {"number": f"{sign}Infinity"}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ArgumentError(
        f"a report's document holds a {type(value).__name__}, which has no place on a page; "
        "use texts, numbers, NumPy arrays of them and the classes of labelwise.pages.document"
    )
