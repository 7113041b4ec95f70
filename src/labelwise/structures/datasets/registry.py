"""The formats by name, and what format a path is of."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from labelwise.errors import DataSetError, check_name
from labelwise.structures.datasets.base import Format

#: In the order in which they are asked whether a path is theirs; each module has a ``FORMAT``.
_MODULES = (
    "transition1x", "spice", "omol", "oc20_lmdb", "oc20_shards", "mace_extxyz", "ase_database",
)  # fmt: skip


def load_formats() -> Mapping[str, Format]:
    """Return the known formats by name."""
    found = [import_module(f"labelwise.structures.datasets.{name}").FORMAT for name in _MODULES]
    return MappingProxyType({each.name: each for each in found})


def recognise(path: Path, name: str | None = None) -> Format:
    """Return the format of a path.

    Args:
        path: A file, or a folder that holds one data set.
        name: Take this format without asking it; None asks all.

    Raises:
        ArgumentError: An unknown name.
        DataSetError: The path does not exist, or no format takes it.
    """
    formats = load_formats()
    if name is not None:
        check_name("format", name, formats)
    if not path.exists():
        raise DataSetError(f"no such file: {path}")
    if name is not None:
        return formats[name]
    for each in formats.values():
        if each.recognise(path):
            return each
    listed = "; ".join(f"{each.name} ({', '.join(each.suffixes)})" for each in formats.values())
    raise DataSetError(f"{path} is in none of the formats that are known: {listed}")
