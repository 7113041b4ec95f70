"""What a reader of published data sets gives, and what a format says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from labelwise.errors import ReadError
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY
from labelwise.timing import ProgressCallback

#: Largest force component that a data set may hold, eV/Å: more is a wrong unit or a crash.
LARGEST_FORCE = 2000.0
_HEAVIEST = 118
_EVERY = 100


class DataSetError(ReadError):
    """A file of a published format that is damaged or not laid out as the format says."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a structure before its arrays are read.

    Attributes:
        position: Place among all structures of the data set, from 0.
        name: Name that stays the same wherever the file lies, for instance
            ``C2H4O/rxn0001/7``.
        family: Reaction, molecule or relaxation that it belongs to; None if there is none.
        order: Place along its path or relaxation; None if there is none.
        subset: Source within the data set, as the publishers name it.
        split: ``train``, ``val_id`` and so on, where the files say so.
        n_atoms: Atoms; None where only reading the structure would tell.
        elements: Atomic numbers, ascending; None where only reading would tell.
        charge: Total charge, e; None where the file does not say.
        spin: Multiplicity 2S + 1; None where the file does not say.
    """

    position: int
    name: str
    family: str | None = None
    order: int | None = None
    subset: str | None = None
    split: str | None = None
    n_atoms: int | None = None
    elements: tuple[int, ...] | None = None
    charge: int | None = None
    spin: int | None = None


@dataclass(frozen=True, slots=True)
class LabelledStructure:
    """A structure as it goes into a pool.

    Attributes:
        entry: What the data set says of it, complete.
        atoms: Positions and cell in Å; info ``REF_energy`` (total energy, eV), array
            ``REF_forces`` (n_atoms, 3) (eV/Å), tags and fixed atoms where there are any, and
            the entry's fields and those of the format in info; no calculator.
    """

    entry: Entry
    atoms: Atoms


class DataFile(ABC):
    """An open file, or folder of files, of one format; a context manager.

    Nothing of the size of the file is ever in memory.
    """

    def __enter__(self) -> DataFile:
        """Return the reader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the file; harmless when repeated."""

    @abstractmethod
    def iter_entries(self) -> Iterator[Entry]:
        """Yield what is known of each structure at little cost, positions from 0.

        Raises:
            DataSetError: The file is damaged or not laid out as the format says.
        """

    @abstractmethod
    def iter_structures(self, wanted: Iterable[int] | None = None) -> Iterator[LabelledStructure]:
        """Yield structures in the order of their positions.

        Args:
            wanted: Ascending positions, none twice; None for all. Others are passed over at as
                little cost as the format allows.

        Raises:
            DataSetError: The file is damaged, a structure has wrong shapes, numbers that are
                not finite, or another unit than the format has; names file and structure.
        """


#: Takes a path and structures, and returns how many it wrote.
Writer = Callable[[Path, Iterable[LabelledStructure]], int]


@dataclass(frozen=True)
class Format:
    """A published format.

    Attributes:
        name: For the command line.
        title: Of the data set that it was made for.
        level_of_theory: Of the labels; ``as the files say`` where it varies.
        citation: Of the data set.
        licence: Of the data set.
        url: Where the files are published.
        units: Of the files themselves, in words.
        layout: How a file looks, in a line.
        recognise: Whether a path is of this format; looks at names and a few bytes only.
        open: Opens a path.
        write: Writes structures to a new file and returns how many; None for formats that are
            read only.
    """

    name: str
    title: str
    level_of_theory: str
    citation: str
    licence: str
    url: str
    units: str
    layout: str
    recognise: Callable[[Path], bool]
    open: Callable[[Path], DataFile]
    write: Writer | None = None
    suffixes: tuple[str, ...] = field(default=())


def make_structure(
    entry: Entry,
    where: str,
    *,
    numbers: Any,
    positions: Any,
    energy: float,
    forces: Any,
    cell: Any = None,
    pbc: bool | tuple[bool, bool, bool] = False,
    tags: Any = None,
    fixed: Any = None,
    info: dict[str, Any] | None = None,
) -> LabelledStructure:
    """Check what was read and make a structure of it.

    Args:
        entry: What the data set says of it; atoms and elements are filled in.
        where: File and structure, for messages.
        numbers: (n,) atomic numbers.
        positions: (n, 3) Å.
        energy: Total energy, eV.
        forces: (n, 3) eV/Å, those of fixed atoms too.
        cell: (3, 3) Å; None for none.
        pbc: Periodic directions.
        tags: (n,) integers; None for none.
        fixed: (n,) whether an atom is fixed; None for none.
        info: Further info keys of the format.

    Raises:
        DataSetError: A wrong shape, a number that is not finite, an atomic number that is none,
            or a force that no unit of the format explains.
    """
    numbers = np.asarray(numbers)
    n_atoms = numbers.size
    positions = _floats(positions, (n_atoms, 3), "positions", where)
    forces = _floats(forces, (n_atoms, 3), "forces", where)
    energy = float(_floats(energy, (), "the energy", where))
    if n_atoms == 0 or numbers.ndim != 1 or numbers.min() < 1 or numbers.max() > _HEAVIEST:
        raise DataSetError(
            f"{where}: atomic numbers are {numbers.tolist()!s:.60}; allowed are 1-118"
        )
    if (numbers != numbers.astype(np.int64)).any():
        raise DataSetError(f"{where}: atomic numbers are not integers ({numbers.tolist()!s:.60})")
    numbers = numbers.astype(np.int64)
    if np.abs(forces).max() > LARGEST_FORCE:
        raise DataSetError(
            f"{where}: a force component of {np.abs(forces).max():.4g} eV/Å; more than "
            f"{LARGEST_FORCE:g} is another unit or a calculation that failed"
        )
    atoms = Atoms(numbers=numbers, positions=positions)
    if cell is not None:
        atoms.cell[:] = _floats(cell, (3, 3), "the cell", where)
        atoms.pbc = pbc
    atoms.arrays[DEFAULT_FORCES_KEY] = forces
    if tags is not None:
        atoms.set_tags(_of_atoms(tags, n_atoms, "tags", where).astype(np.int64))
    if fixed is not None:
        mask = _of_atoms(fixed, n_atoms, "fixed atoms", where).astype(bool)
        if mask.any():
            atoms.set_constraint(FixAtoms(mask=mask))
    filled = Entry(
        entry.position,
        entry.name,
        entry.family,
        entry.order,
        entry.subset,
        entry.split,
        n_atoms,
        tuple(sorted(set(numbers.tolist()))),
        entry.charge,
        entry.spin,
    )
    atoms.info = {DEFAULT_ENERGY_KEY: energy, **_info_of(filled), **(info or {})}
    return LabelledStructure(filled, atoms)


def _info_of(entry: Entry) -> dict[str, Any]:
    """Return an entry's fields under the info keys that the rest of the package looks for."""
    named = {
        "name": entry.name,
        "family": entry.family,
        "frame": entry.order,
        "subset": entry.subset,
        "split": entry.split,
        "charge": entry.charge,
        "spin": entry.spin,
    }
    return {key: value for key, value in named.items() if value is not None}


def _floats(values: Any, shape: tuple[int, ...], what: str, where: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataSetError(f"{where}: {what} are not numbers ({values!r:.40})") from error
    if array.shape != shape:
        raise DataSetError(f"{where}: {what}: shape {array.shape}; expected {shape}")
    if not np.isfinite(array).all():
        raise DataSetError(f"{where}: {what}: not finite")
    return array


def _of_atoms(values: Any, n_atoms: int, what: str, where: str) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (n_atoms,):
        raise DataSetError(f"{where}: {what}: shape {array.shape}; expected ({n_atoms},)")
    return array


def count(
    structures: Iterable[LabelledStructure],
    stage: str,
    total: int | None,
    progress: ProgressCallback,
) -> Iterator[LabelledStructure]:
    """Yield structures and report every hundredth."""
    n_done = 0
    for n_done, structure in enumerate(structures, start=1):
        yield structure
        if n_done % _EVERY == 0:
            progress(stage, n_done, total)
    progress(stage, n_done, total)
