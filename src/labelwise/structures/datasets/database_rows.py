"""Rows of ASE's databases as labelled structures, whatever file they lie in, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from ase.constraints import FixAtoms, FixConstraint
from ase.db.core import bytes_to_object, object_to_bytes

from labelwise.errors import DataSetError
from labelwise.structures.datasets.base import Entry, LabelledStructure, make_structure
from labelwise.structures.info_text import is_same_value
from labelwise.structures.labels import (
    ASE_KEYS,
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
    as_real,
)
from labelwise.structures.left_out import LeftOut

_LABEL_KEYS = (DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY)
_ENTRY_KEYS = ("name", "family", "frame", "subset", "split", "charge", "spin")
_NOT_EXTRA = frozenset((*_LABEL_KEYS, *_ENTRY_KEYS))


def describe_row(
    position: int,
    where: str,
    *,
    numbers: Any,
    keys: Mapping[str, Any],
    name: str,
    family: str | None = None,
    order: int | None = None,
    subset: str | None = None,
) -> Entry:
    """Return the entry of a row; its own keys win over what is given.

    The keys are ``family``, ``frame``, ``subset``, ``split``, ``charge`` (e) and ``spin``
    (multiplicity 2S + 1).

    Args:
        position: Place in the data set, from 0.
        where: File and row, for messages.
        numbers: (n,) atomic numbers.
        keys: Data and key-value pairs of the row.
        name: Its name.
        family: Reaction or relaxation, where it is known otherwise.
        order: Place along it.
        subset: Source within the data set.

    Raises:
        DataSetError: ``frame``, ``charge`` or ``spin`` are not integers, a multiplicity is
                below 1, or the others are not text; atomic numbers are no numbers.
    """
    listed = _list_numbers(numbers, where)
    spin = _integer(keys, "spin", where)
    if spin is not None and spin < 1:
        raise DataSetError(f"{where}: spin is {spin}; it is the multiplicity 2S + 1, at least 1")
    own_order = _integer(keys, "frame", where)
    return Entry(
        position,
        name,
        family=_text(keys, "family", where) or family,
        order=order if own_order is None else own_order,
        subset=_text(keys, "subset", where) or subset,
        split=_text(keys, "split", where),
        n_atoms=len(listed),
        elements=tuple(sorted(set(listed))),
        charge=_integer(keys, "charge", where),
        spin=spin,
    )


def _list_numbers(numbers: Any, where: str) -> list[Any]:
    with suppress(ValueError):
        array = np.asarray(numbers)
        if array.dtype.kind in "iuf":
            return array.ravel().tolist()
    raise DataSetError(f"{where}: atomic numbers are {numbers!r:.40}; expected integers")


def _integer(keys: Mapping[str, Any], key: str, where: str) -> int | None:
    value = keys.get(key)
    if value is None or type(value) is int:
        return value
    if isinstance(value, float | np.number) and float(value).is_integer():
        return int(value)
    raise DataSetError(f"{where}: {key} is {value!r:.40}; expected an integer")


def _text(keys: Mapping[str, Any], key: str, where: str) -> str | None:
    value = keys.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    raise DataSetError(f"{where}: {key} is {value!r:.40}; expected text")


def find_labels(energy: Any, forces: Any, keys: Mapping[str, Any], where: str) -> tuple[float, Any]:
    """Return the labels of a row, never one of each kind.

    ``REF_energy`` and ``REF_forces`` among the keys win over the calculator's results, as they
    do in extended XYZ; ``energy`` and ``forces`` among the keys, where SchNetPack has them, count
    where there are no results.

    Returns:
        The energy (eV) and, not checked, the forces (eV/Å).

    Raises:
        DataSetError: Either is missing, or the energy is no number.
    """
    names = _LABEL_KEYS if any(key in keys for key in _LABEL_KEYS) else ASE_KEYS
    if names == _LABEL_KEYS or (energy is None and forces is None):
        energy, forces = (keys.get(key) for key in names)
    missing = [name for name, value in zip(names, (energy, forces), strict=True) if value is None]
    if missing:
        raise DataSetError(
            f"{where} has no {' and no '.join(missing)}; every row needs the energy and forces of "
            "a calculator, or REF_energy and REF_forces: label it or delete it"
        )
    try:
        return float(as_real(energy).reshape(())), forces
    except (TypeError, ValueError) as error:
        raise DataSetError(
            f"{where}: the energy is {energy!r:.40}; expected a number, eV"
        ) from error


def structure_of_row(
    entry: Entry,
    where: str,
    *,
    keys: Mapping[str, Any],
    constraints: Sequence[FixConstraint],
    numbers: Any,
    positions: Any,
    energy: Any,
    forces: Any,
    cell: Any,
    pbc: Any,
    tags: Any,
) -> LabelledStructure:
    """Return a row as a structure with its labels, constraints and keys.

    Args:
        entry: What is known of it.
        where: File and row, for messages.
        keys: Its ``data`` and its key-value pairs, which win.
        constraints: Constraints on the atoms.
        numbers: (n,) atomic numbers.
        positions: (n, 3) Å.
        energy: Of the calculator's results, eV; None for none.
        forces: Of the calculator's results, (n, 3) eV/Å; None for none.
        cell: (3, 3) Å; None or zeros for none.
        pbc: (3,) whether a direction is periodic; None for none.
        tags: (n,) integers; None for none.

    Raises:
        DataSetError: As ``find_labels`` and ``make_structure``; or a constraint on an atom that
            is not there.
    """
    known = _NOT_EXTRA.union(ASE_KEYS if energy is None and forces is None else ())
    energy, forces = find_labels(energy, forces, keys, where)
    try:
        cell, pbc = _take_cell(cell, pbc)
        structure = make_structure(
            entry,
            where,
            numbers=numbers,
            positions=positions,
            energy=energy,
            forces=forces,
            cell=cell,
            pbc=pbc,
            tags=tags,
            fixed=_mark_fixed(constraints, np.size(numbers), where),
            info={k: v for k, v in keys.items() if v is not None and k not in known},
        )
    except (TypeError, ValueError) as error:  # NumPy, on what is no array
        raise DataSetError(f"{where}: {error}") from error
    structure.keep_constraints(constraints)
    return structure


def _take_cell(cell: Any, pbc: Any) -> tuple[Any, tuple[bool, bool, bool]]:
    """Return the cell, or None where nothing is said, and the periodic directions."""
    x, y, z = (False, False, False) if pbc is None else map(bool, pbc)
    if cell is None:
        return None, (x, y, z)
    vectors = np.asarray(cell, dtype=float)
    return vectors if x or y or z or vectors.any() else None, (x, y, z)


def _mark_fixed(
    constraints: Sequence[FixConstraint], n_atoms: int, where: str
) -> np.ndarray[Any, np.dtype[Any]] | None:
    if not constraints:
        return None
    mask = np.zeros(n_atoms, dtype=bool)
    for constraint in constraints:
        if isinstance(constraint, FixAtoms):
            try:
                mask[constraint.index] = True
            except IndexError as error:
                raise DataSetError(f"{where}: fixed atoms: {error}") from error
    return mask


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
