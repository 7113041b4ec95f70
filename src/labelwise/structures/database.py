"""Rows of ASE databases as structures: SQLite, JSON and LMDB (``.aselmdb``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase import Atoms
from ase.db.row import AtomsRow

from labelwise.structures.aselmdb import AselmdbRows, restore

_NUMBER_KINDS = "biuf"
_MOST_DIMENSIONS = 2
#: Quantities of a whole structure may have three or six rows, as many as it has atoms.
_WHOLE_SHAPES = ((3,), (6,), (3, 3))
_OF_THE_WHOLE = re.compile("dipole|quadrupole|polari|stress|virial|cell|lattice", re.IGNORECASE)
_OF_ATOMS = frozenset({"stresses"})


def iter_database(path: Path) -> Iterator[Atoms]:
    """Read the rows of a database in their order; nothing is locked or written.

    Args:
        path: A file that ends in .db, .json or .aselmdb.

    Yields:
        The rows, see ``atoms_of_row``.

    Raises:
        DataSetError: An .aselmdb file is damaged.
        MissingDependencyError: lmdb is not installed, and the file is .aselmdb.
        Exception: Whatever ASE stumbles on.
    """
    if path.suffix.lower() == ".aselmdb":
        rows = AselmdbRows(path)
        for number, raw in rows.iter_rows(rows.ids):
            where = f"{path}: row {number}"
            row = AtomsRow({k: restore(v, f"{where}: {k}") for k, v in raw.items()})
            if isinstance(row.cell, dict):  # older versions of ASE
                row.cell = row.cell["array"]
            yield atoms_of_row(row)
        rows.close()
        return
    with ase.db.connect(str(path), use_lock_file=False) as database:
        for row in database.select():
            yield atoms_of_row(row)


def atoms_of_row(row: AtomsRow) -> Atoms:
    """Return a row as a structure with its ``data`` and key-value pairs, which win.

    Arrays of ``data`` with a row for each atom are arrays of the structure, others are info;
    arrays of one element are numbers.

    Args:
        row: A row, decoded.
    """
    atoms: Atoms = row.toatoms()
    _add_data(atoms, row.data if isinstance(row.data, dict) else {})
    # Not the values of key_value_pairs: for "charge" ASE gives the sum of initial charges there.
    atoms.info.update({key: vars(row)[key] for key in row.key_value_pairs})
    return atoms


def _add_data(atoms: Atoms, data: Mapping[str, Any]) -> None:
    for key, value in data.items():
        array = _as_array(value)
        if value is None:
            continue
        if array is not None and array.size == 1:
            atoms.info[key] = array.item()
        elif array is not None and _is_of_atoms(key, array, atoms):
            atoms.arrays[key] = array
        else:
            atoms.info[key] = value


def _as_array(value: Any) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Return an array, or a list of numbers, as an array of numbers; None for anything else."""
    if not isinstance(value, np.ndarray | list):
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        return None
    return array if array.dtype.kind in _NUMBER_KINDS else None


def _is_of_atoms(key: str, array: np.ndarray[Any, np.dtype[Any]], atoms: Atoms) -> bool:
    """Return whether an array has a row for each atom and can be a column of extended XYZ."""
    if array.shape[:1] != (len(atoms),) or array.ndim > _MOST_DIMENSIONS or array.size == 0:
        return False
    if key in atoms.arrays or not key.isidentifier():
        return False
    may_be_whole = array.shape in _WHOLE_SHAPES and key not in _OF_ATOMS
    return not (may_be_whole and _OF_THE_WHOLE.search(key))
