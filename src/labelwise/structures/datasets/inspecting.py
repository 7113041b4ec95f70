"""What a published file holds, found out as a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ase.data import chemical_symbols

from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures.datasets.base import DataFile, Entry, LabelledStructure, count
from labelwise.structures.datasets.survey import open_data_set
from labelwise.structures.fixed_atoms import free_atoms
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY

#: Names of families kept to count them; more are told as "more than".
_MOST_FAMILIES = 2_000_000
_Number = TypeVar("_Number", int, float)


@dataclass
class Inspection:
    """What was found.

    Attributes:
        path: The file or folder.
        format_name: Of which format.
        n_structures: In all.
        n_read: Whose arrays were read and checked.
        families: Different families.
        subsets, splits, charges, spins: How many structures each has; entries that do not say
            are not counted.
        elements: How many hold each element: of all, or of those read where only that tells.
        n_atoms: Fewest and most atoms, likewise; None if there are no structures.
        numbers: Ranges of those read: ``energy`` and ``energy_per_atom`` (eV), ``forces_rms`` and
            ``forces_max`` (eV/Å), each smallest and largest.
        n_periodic: Of those read.
        n_with_fixed: Structures with fixed atoms, of those read.
        info_keys: Info keys of those read, and how often.
    """

    path: str
    format_name: str
    n_structures: int = 0
    n_read: int = 0
    families: int = 0
    subsets: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    charges: Counter[int] = field(default_factory=Counter)
    spins: Counter[int] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)
    n_atoms: tuple[int, int] | None = None
    numbers: dict[str, tuple[float, float]] = field(default_factory=dict)
    n_periodic: int = 0
    n_with_fixed: int = 0
    info_keys: Counter[str] = field(default_factory=Counter)

    def describe(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            name: dict(sorted(value.items())) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }


def inspect_data(
    path: Path,
    *,
    n_read: int | None = 10_000,
    format_name: str | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Inspection:
    """Look at every structure of a file, and read and check some.

    Args:
        path: A file, or a folder that holds one data set.
        n_read: Structures whose arrays are read, evenly spread; None for all.
        format_name: Take it for this format; None finds out.
        progress: Told how far it is.

    Raises:
        ArgumentError: An unknown format.
        DataSetError: The path does not exist, is of no format or is damaged.
    """
    data = open_data_set([path], format_name)
    found = Inspection(str(path), data.formats[0].name)
    _look(data, found)
    says_elements = bool(found.elements)
    total = found.n_structures if n_read is None else min(n_read, found.n_structures)
    structures = _read(data, found.n_structures, n_read)
    for structure in count(structures, "check", total, progress):
        _take(structure, found)
        if not says_elements:
            _count_atoms(structure.entry, found)
    return found


def _look(data: DataFile, found: Inspection) -> None:
    families: set[str] = set()
    for entry in data.iter_entries():
        found.n_structures += 1
        if entry.family is not None and len(families) < _MOST_FAMILIES:
            families.add(entry.family)
        _count(entry, found)
    found.families = len(families)


def _count(entry: Entry, found: Inspection) -> None:
    counters = (
        (found.subsets, entry.subset),
        (found.splits, entry.split),
        (found.charges, entry.charge),
        (found.spins, entry.spin),
    )
    for counter, value in counters:
        if value is not None:
            counter[value] += 1  # type: ignore[index]
    _count_atoms(entry, found)


def _count_atoms(entry: Entry, found: Inspection) -> None:
    if entry.elements is not None:
        found.elements.update(chemical_symbols[number] for number in entry.elements)
    if entry.n_atoms is not None:
        found.n_atoms = _widened(found.n_atoms, entry.n_atoms)


def _read(data: DataFile, n_structures: int, n_read: int | None) -> Iterator[LabelledStructure]:
    if n_read is None or n_read >= n_structures:
        return data.iter_structures()
    places = np.unique(np.linspace(0, n_structures - 1, n_read).round().astype(np.int64))
    return data.iter_structures(places.tolist())


def _take(structure: LabelledStructure, found: Inspection) -> None:
    atoms = structure.atoms
    forces = atoms.arrays[DEFAULT_FORCES_KEY]
    energy = atoms.info[DEFAULT_ENERGY_KEY]
    values = {
        "energy": energy,
        "energy_per_atom": energy / len(atoms),
        "forces_rms": float(np.sqrt(np.mean(forces**2))),
        "forces_max": float(np.abs(forces).max()),
    }
    for name, value in values.items():
        found.numbers[name] = _widened(found.numbers.get(name), value)
    found.n_read += 1
    found.n_periodic += bool(atoms.pbc.any())
    found.n_with_fixed += bool(not free_atoms(atoms).all())
    found.info_keys.update(str(key) for key in atoms.info)


def _widened(known: tuple[_Number, _Number] | None, value: _Number) -> tuple[_Number, _Number]:
    """Return a range that holds a value, too."""
    return (value, value) if known is None else (min(known[0], value), max(known[1], value))
