"""The comment line of extended XYZ: keys in any case, as GPUMD and NEP write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.io.extxyz import key_val_str_to_dict

from labelwise.structures.info_text import fill_empty_values

_CELL_SIZE = 9
USUAL_COLUMNS = "species:S:1:pos:R:3"
_SYMBOL_COLUMNS = frozenset({"species", "symbols", "Z", "numbers"})
_POSITION_COLUMNS = frozenset({"pos", "positions"})
#: ASE takes these words for keys, wherever they stand.
_KEY_WORD = re.compile(r"\b(?:Lattice|Properties|pbc|virial|stress)\b")
_FLAGS = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
#: A word for a cell, and three numbers behind it: ``CELL(abcABC): 10 10 10``, ``box="9 9 9"``.
_CELL_HINT = re.compile(
    r"\b\w*(?:lattice|cell|box|cryst1)\w*\s*(?:\([a-z]*\))?"
    r"(?:[\s:=\"'\[({,]+[-+]?\.?\d[\w.+-]*){3}",
    re.IGNORECASE,
)

_CELL_PARAMETERS = ("a", "b", "c", "alpha", "beta", "gamma")


def read_comment(line: str) -> dict[str, Any]:
    """Return the keys of a comment line; the frame's own are spelt as ASE spells them.

    ``Lattice``, ``Properties`` and ``pbc`` are taken in any case. A key of another case that
    is text stays the user's own (``lattice=fcc``), as does one beside ASE's spelling.

    Args:
        line: The second line of a frame.

    Returns:
        Keys and values as ``ase.io.extxyz`` has them.

    Raises:
        ValueError: A cell without nine numbers, two cells, columns without symbols or
            positions, or periodic directions that are no flags.
    """
    if "=" not in line and _KEY_WORD.search(line):
        return {"comment": line.strip()}  # a sentence: ASE would take its words for keys
    keys: dict[str, Any] = key_val_str_to_dict(fill_empty_values(line))
    for key in list(keys):
        if key.lower() == "lattice" and key != "Lattice":
            _adopt_lattice(keys, key)
        elif key.lower() == "properties" and key != "Properties":
            if isinstance(keys[key], str) and "Properties" not in keys:
                keys["Properties"] = keys.pop(key)
        elif key.lower() == "pbc" and key != "pbc" and keys[key] is not True:
            keys.setdefault("pbc", keys.pop(key))
    if isinstance(keys.get("pbc"), str):
        keys["pbc"] = _read_flags(keys["pbc"])
    if "Properties" in keys:
        keys["Properties"] = _tidy_columns(str(keys["Properties"]))
    return keys


def find_unread_cell(line: str, keys: Mapping[str, Any]) -> str:
    """Return what a comment line says of a cell that is not read; '' for nothing.

    Args:
        line: The comment line.
        keys: What ``read_comment`` returned for it.
    """
    if "Lattice" in keys or ("pbc" in keys and not np.any(keys["pbc"])):
        return ""
    hint = _CELL_HINT.search(line)
    if hint is not None:
        return hint.group()
    if {key.lower() for key in keys}.issuperset(_CELL_PARAMETERS):
        return " ".join(f"{key}={keys[key]}" for key in keys if key.lower() in _CELL_PARAMETERS)
    texts = (key for key, value in keys.items() if isinstance(value, str))
    return next((f"{key}={keys[key]}" for key in texts if key.lower() == "lattice"), "")


def _adopt_lattice(keys: dict[str, Any], key: str) -> None:
    """Take a cell under another spelling for the frame's, unless it is no cell."""
    value = keys[key]
    if value is True or isinstance(value, str | list | dict):
        return
    numbers = np.asarray(value)
    if "Lattice" in keys:
        if numbers.size == _CELL_SIZE and (keys["Lattice"].ravel("F") != numbers.ravel()).any():
            raise ValueError(f"Lattice and {key} give two different cells")
        return
    if numbers.shape != (_CELL_SIZE,):
        raise ValueError(f"{key} has {numbers.size} numbers; a cell has nine, in quotes")
    keys["Lattice"] = numbers.reshape((3, 3), order="F")
    del keys[key]


def _read_flags(text: str) -> list[bool]:
    words = re.findall(r"[^\s,]+", text.lower())
    if len(words) != 3 or not _FLAGS.keys() >= {*words}:
        raise ValueError(f"pbc is {text!r:.40}; allowed are three of T and F")
    return [_FLAGS[word] for word in words]


def _tidy_columns(properties: str) -> str:
    """Return the columns with ``species`` and ``pos`` and the types' letters as ASE has them."""
    fields = properties.split(":")
    if not properties.startswith(USUAL_COLUMNS):
        for name in ("species", "pos"):
            if name not in fields[::3]:
                fields[::3] = [name if each.lower() == name else each for each in fields[::3]]
        fields[1::3] = [kind.upper() for kind in fields[1::3]]
        if "species" in fields[::3]:  # types of LAMMPS are told as symbols that are none
            fields[3 * fields[::3].index("species") + 1] = "S"
    named = {*fields[::3]}
    if not named & _SYMBOL_COLUMNS or not named & _POSITION_COLUMNS:
        raise ValueError(f"the columns are {', '.join(fields[::3])}; species and pos are needed")
    return ":".join(fields)
