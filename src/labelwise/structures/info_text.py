"""Info of a structure in the comment line of extended XYZ: written so that it can be read.

ASE's writer lets some values change the meaning of what follows: an empty text swallows the next
key, a line break cuts the line, ``"007"`` becomes a number. What ASE writes well is left as it
writes it; the rest is written as ``key="_JSON ..."``, which ASE reads.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import numpy as np
from ase.io.extxyz import (
    SPECIAL_3_3_KEYS,
    UNPROCESSED_KEYS,
    key_val_dict_to_str,
    key_val_str_to_dict,
    per_config_properties,
)
from ase.spacegroup.spacegroup import Spacegroup

_OWN_KEYS = ("Lattice", "Properties", "pbc")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./+#@:()-]*")
#: Words that ASE reads as truth values or numbers.
_READ_AS_NUMBERS = frozenset({"t", "f", "true", "false", "nan", "inf", "infinity"})
_INT64 = range(-(2**63), 2**63)
_NUMERIC_KINDS = "biuf"
_N_REMEMBERED = 4096
#: Stand before and behind an entry while it is tried.
_BEFORE, _BEHIND = "labelwise-before", "labelwise-behind"
_OPENING = {"'": "'", '"': '"', "{": "}", "[": "]"}
#: A value that may be empty: nothing, or nothing between quotes, or a word that is a key itself.
_MAY_BE_EMPTY = re.compile(r"=\s*(?:\"\"|''|\{\}|\[\]|$)|=\s+[^\s=\"'{}\[\]\\]+=")
_EMPTY = re.compile(r"\s*(?:\"\"|''|\{\}|\[\])?(?=\s|$)")
_NEXT_KEY = re.compile(r"\s+[^\s=\"'{}\[\]\\]+=")
_EMPTY_TEXT = r'"_JSON \"\""'


def format_entry(key: Any, value: Any) -> str | None:
    """Return an info entry for the comment line of a frame, None if it cannot be held.

    Args:
        key: The info key.
        value: Anything.

    Returns:
        ``key=value``, as ASE writes it if that reads back as the same value of the same kind
        (text, truth value, integer, real number, nothing, list or dictionary of such; a list
        of numbers counts as an array), else as JSON. None where neither does, where the key
        belongs to the frame, and where ASE could not read the frame any more.
    """
    if not isinstance(key, str) or _belongs_to_frame(key, value):
        return None
    if isinstance(value, str):
        return _format_text(key, str.__str__(value))
    if key in SPECIAL_3_3_KEYS:
        value = _as_matrix(value)
    if _KEY.fullmatch(key) and _is_written_well(key, value):
        plain: str = key_val_dict_to_str({key: value})
        return plain
    return _try_forms(key, value)


def is_word(text: str) -> bool:
    """Return whether a text stands for itself in a comment line, without quotes."""
    return bool(_WORD.fullmatch(text)) and text.lower() not in _READ_AS_NUMBERS


def format_json(value: Any) -> str | None:
    """Return a value as quoted ``_JSON``, None if it does not read back as the same."""
    text = _quote_json(value)
    if text is None or isinstance(value, str):  # JSON holds any text
        return text
    return text if _reads_back(f"key={text}", "key", value) else None


def fill_empty_values(line: str) -> str:
    """Return a comment line with its empty values spelt out.

    ASE's parser takes the key behind an empty value for the value: ``comment="" energy=-3`` is
    read as ``comment`` alone. A value is empty if nothing, or nothing between quotes, stands
    between ``=`` and a blank, and if what follows the blank is a key with its own ``=``.

    Args:
        line: The second line of a frame of extended XYZ.

    Returns:
        The same line where no value is empty; else one that ASE reads with empty texts.
    """
    if not _MAY_BE_EMPTY.search(line):
        return line
    parts, at, start = [], 0, 0
    while at < len(line):
        char = line[at]
        if char == "\\":
            at += 2
        elif char in _OPENING:
            at = _skip_quoted(line, at)
        elif char == "=":
            at += 1
            end = _find_empty(line, at)
            if end is not None:
                parts += [line[start:at], _EMPTY_TEXT]
                at = start = end
        else:
            at += 1
    return "".join([*parts, line[start:]])


def _find_empty(line: str, at: int) -> int | None:
    """Return where an empty value that begins at a place ends; None if it is not empty."""
    if _NEXT_KEY.match(line, at):
        return at
    found = _EMPTY.match(line, at)
    if found is None:
        return None
    is_quoted = found.group().strip() != ""
    return found.end() if is_quoted or not line[at:].strip() else None


def _skip_quoted(line: str, at: int) -> int:
    """Return the place behind a quoted part."""
    closing = _OPENING[line[at]]
    at += 1
    while at < len(line) and line[at] != closing:
        at += 2 if line[at] == "\\" else 1
    return at + 1


def _belongs_to_frame(key: str, value: Any) -> bool:
    """Return whether a reader would take an entry for the frame's own."""
    if key in _OWN_KEYS:
        return True
    return key.lower() in map(str.lower, _OWN_KEYS) and not isinstance(value, str)


def _is_written_well(key: str, value: Any) -> bool:
    """Return whether ASE writes a value well under a plain key, without trying."""
    if key in SPECIAL_3_3_KEYS:
        return isinstance(value, np.ndarray) and value.shape == (3, 3)
    if isinstance(value, np.ndarray):
        # Of one number the axis would be lost.
        return value.dtype in (np.float64, np.int64) and value.ndim > 0 and value.size > 1
    if type(value) is list:
        return {*map(type, value)} == {float}
    if isinstance(value, int) and not isinstance(value, bool):
        return value in _INT64
    return isinstance(value, bool | np.bool_ | float)


@lru_cache(maxsize=_N_REMEMBERED)
def _format_text(key: str, text: str) -> str | None:
    if key not in per_config_properties and _KEY.fullmatch(key) and is_word(text):
        return f"{key}={text}"
    return _try_forms(key, text)


def _try_forms(key: str, value: Any) -> str | None:
    plain = _as_ase_writes(key, value)
    if plain is not None and _reads_back(plain, key, value):
        return plain
    text = _quote_json(value)
    entry = None if text is None else f"{_quote_key(key)}={text}"
    return entry if entry is not None and _reads_back(entry, key, value) else None


def _as_ase_writes(key: str, value: Any) -> str | None:
    """Return what ASE writes, None for what it leaves out with a warning of its own."""
    is_simple = value is None or isinstance(value, str | Spacegroup)
    if not is_simple and _as_json(value) is None:
        return None
    text: str = key_val_dict_to_str({key: value})
    return text


def _quote_json(value: Any) -> str | None:
    text = _as_json(value)
    return None if text is None else _quote(f"_JSON {text}")


def _as_json(value: Any) -> str | None:
    plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    try:
        return json.dumps(plain)
    except (TypeError, ValueError, RecursionError):
        return None


def _quote_key(key: str) -> str:
    return key if _KEY.fullmatch(key) else _quote(key)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _as_matrix(value: Any) -> Any:
    """Return what ASE can hold under a key of 3 x 3 numbers as an array, anything else as it is."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different length
        return value
    is_matrix = array.dtype.kind in _NUMERIC_KINDS and array.size == 9
    return array.reshape(3, 3, order="F" if array.ndim == 1 else "C") if is_matrix else value


def _reads_back(entry: str, key: str, value: Any) -> bool:
    """Return whether an entry, with others around it, is read as the same key and value."""
    if "\n" in entry or "\r" in entry or not _is_encodable(entry):
        return False
    line = f"{_BEFORE}=1 {entry} {_BEHIND}=1"
    if fill_empty_values(line) != line:
        return False
    try:
        found = key_val_str_to_dict(line)
        is_whole = [*found] == [_BEFORE, key, _BEHIND] and found[_BEHIND] == 1
        return is_whole and _can_be_result(key, found[key]) and _is_same(key, value, found[key])
    except Exception:  # ASE's parser raises whatever it stumbles on
        return False


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8", errors="surrogateescape").decode("utf-8")
    except UnicodeError:
        return False
    return True


def _can_be_result(key: str, value: Any) -> bool:
    """Return whether ASE can make a calculator's result of a value that it would take for one."""
    if key in per_config_properties and value is not None:
        np.array(value, float)
    return True


def _is_same(key: str, value: Any, found: Any) -> bool:
    """Return whether a value that was read is the one that was written."""
    if isinstance(value, Spacegroup):
        return True  # ASE keeps its symbol
    if key.lower() in UNPROCESSED_KEYS:
        return isinstance(found, str) and found == str(value)
    return is_same_value(value, found)


def is_same_value(one: Any, other: Any) -> bool:
    """Return whether two values are the same but for the containers that hold them.

    Lists, tuples and arrays of the same numbers are the same, and so are numbers of Python and
    NumPy; texts, truth values, integers and real numbers are not.
    """
    one, other = _unwrap(one), _unwrap(other)
    if isinstance(one, list | np.ndarray) and isinstance(other, list | np.ndarray):
        return _are_same_sequences(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        is_alike = [*one] == [*other] and [*map(type, one)] == [*map(type, other)]
        return is_alike and all(is_same_value(value, other[key]) for key, value in one.items())
    return bool(one == other or (one != one and other != other))  # NaN is NaN


def _unwrap(value: Any) -> Any:
    """Return a number or text without NumPy's wrapping, and sequences but arrays as lists."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return list(value) if isinstance(value, tuple) else value


def _are_same_sequences(one: list[Any] | np.ndarray, other: list[Any] | np.ndarray) -> bool:
    first, second = _as_numbers(one), _as_numbers(other)
    if first is not None and second is not None:
        return first.shape == second.shape and _are_same_numbers(first, second)
    return len(one) == len(other) and all(map(is_same_value, one, other))


def _as_numbers(values: list[Any] | np.ndarray) -> np.ndarray | None:
    """Return an array of numbers or truth values, None for anything else."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different length
        return None
    return array if array.dtype.kind in _NUMERIC_KINDS else None


def _are_same_numbers(first: np.ndarray, second: np.ndarray) -> bool:
    """Compare in the precision of the first."""
    kinds = {"i" if array.dtype.kind == "u" else array.dtype.kind for array in (first, second)}
    if len(kinds) > 1:
        return False
    return bool(np.array_equal(first, second.astype(first.dtype), equal_nan=kinds == {"f"}))
