"""What a reader of published data sets gives, and what a format says of itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import yaml
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixConstraint

from labelwise.errors import ArgumentError, DataSetError
from labelwise.runtime.timing import ProgressCallback
from labelwise.structures.fixed_atoms import free_atoms, list_unwritten
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY, as_real

#: Largest force component that a data set may hold, eV/Å: more is a wrong unit or a crash.
LARGEST_FORCE = 2000.0
_HEAVIEST = 118
_NOT_PERIODIC = (False, False, False)
_EVERY = 100
_Part = TypeVar("_Part")


class Entry(NamedTuple):
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
class StructureArrays:
    """A labelled structure before it is made an ``Atoms``, which takes longer than reading it.

    Attributes:
        numbers: (n,) int64 atomic numbers.
        positions: (n, 3) float64, Å.
        forces: (n, 3) float64, eV/Å.
        cell: (3, 3) float64, Å; None for none.
        pbc: Periodic directions.
        tags: (n,) int64; None for none.
        fixed: (n,) whether an atom is fixed; None if none is.
        info: Info keys, the energy (eV) among them.
    """

    numbers: np.ndarray
    positions: np.ndarray
    forces: np.ndarray
    cell: np.ndarray | None
    pbc: tuple[bool, bool, bool]
    tags: np.ndarray | None
    fixed: np.ndarray | None
    info: dict[str, Any]

    def to_atoms(self) -> Atoms:
        """Return the structure as ASE has it, with arrays of its own where ASE copies them."""
        atoms = Atoms(numbers=self.numbers, positions=self.positions)
        if self.cell is not None:
            atoms.cell[:] = self.cell
            atoms.pbc = self.pbc
        atoms.arrays[DEFAULT_FORCES_KEY] = self.forces
        if self.tags is not None:
            atoms.set_tags(self.tags)
        if self.fixed is not None:
            atoms.set_constraint(FixAtoms(mask=self.fixed))
        atoms.info = dict(self.info)
        return atoms


class LabelledStructure:
    """A structure as it goes into a pool.

    It is made of an ``Atoms`` or of arrays, and is arrays until ``atoms`` is asked for.

    Attributes:
        entry: What the data set says of it, complete.
    """

    __slots__ = ("_content", "entry")

    def __init__(self, entry: Entry, structure: Atoms | StructureArrays) -> None:
        self.entry = entry
        self._content: Atoms | StructureArrays = structure

    @property
    def atoms(self) -> Atoms:
        """The structure as ASE has it; the caller may change it.

        Positions and cell in Å; info ``REF_energy`` (total energy, eV), array ``REF_forces``
        (n_atoms, 3) (eV/Å), tags and fixed atoms where there are any, and the entry's fields
        and those of the format in info; no calculator.
        """
        if isinstance(self._content, StructureArrays):
            self._content = self._content.to_atoms()
        return self._content

    @property
    def arrays(self) -> StructureArrays:
        """The same as arrays, not to be changed."""
        if isinstance(self._content, StructureArrays):
            return self._content
        atoms = self._content
        fixed = ~free_atoms(atoms) if atoms.constraints else None
        return StructureArrays(
            atoms.numbers,
            atoms.positions,
            atoms.arrays[DEFAULT_FORCES_KEY],
            atoms.cell.array if atoms.cell.array.any() or atoms.pbc.any() else None,
            tuple(atoms.pbc.tolist()),
            atoms.arrays.get("tags"),
            fixed,
            atoms.info,
        )

    def keep_constraints(self, constraints: Iterable[FixConstraint]) -> None:
        """Add the constraints that arrays do not hold: all but fixed atoms."""
        others = [each for each in constraints if not isinstance(each, FixAtoms)]
        if others:
            self.atoms.set_constraint([*self.atoms.constraints, *others])

    def list_unheld(self) -> list[str]:
        """Return the kinds of constraints that the arrays do not hold, sorted."""
        if isinstance(self._content, StructureArrays) or not self._content.constraints:
            return []
        free = free_atoms(self._content)
        partial = [
            type(each).__name__
            for each in self._content.constraints
            if isinstance(each, FixCartesian) and free[each.index].any()
        ]
        return sorted({*partial, *list_unwritten(self._content)})

    def moved_by(self, offset: int) -> LabelledStructure:
        """Return the same structure at a position that is larger by ``offset``."""
        entry = self.entry._replace(position=self.entry.position + offset)
        return LabelledStructure(entry, self._content)


class DataFile(AbstractContextManager["DataFile"]):
    """A file, or folder of files, of one format; a context manager that closes it.

    Nothing of the size of the file is ever in memory.
    """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close what is open, which for most formats is nothing between two structures."""

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
            ArgumentError: Wanted positions that do not ascend or are not in the data set.
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
    write: Writer | None
    suffixes: tuple[str, ...]


def make_format(
    name: str,
    *,
    recognise: Callable[[Path], bool],
    opener: Callable[[Path], DataFile],
    write: Writer | None = None,
) -> Format:
    """Return a format with what ``formats.yaml`` says of it."""
    said = _load_formats()[name]
    suffixes = tuple(said["suffixes"])
    return Format(
        **{**said, "suffixes": suffixes}, name=name, recognise=recognise, open=opener, write=write
    )


@lru_cache(maxsize=1)
def _load_formats() -> dict[str, Any]:
    text = files(__package__).joinpath("formats.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text))


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
    numbers, elements = _elements(numbers, where)
    largest = np.abs(forces).max()
    if largest > LARGEST_FORCE:
        raise DataSetError(
            f"{where}: a force component of {largest:.4g} eV/Å; more than "
            f"{LARGEST_FORCE:g} is another unit or a calculation that failed"
        )
    if cell is not None:
        cell = _floats(cell, (3, 3), "the cell", where)
    if tags is not None:
        tags = _of_atoms(tags, n_atoms, "tags", where).astype(np.int64, copy=False)
    if fixed is not None:
        fixed = _of_atoms(fixed, n_atoms, "fixed atoms", where).astype(bool, copy=False)
    filled = entry._replace(n_atoms=n_atoms, elements=elements)
    arrays = StructureArrays(
        numbers,
        positions,
        forces,
        cell,
        _NOT_PERIODIC if cell is None else _three(pbc),
        tags,
        fixed if fixed is not None and fixed.any() else None,
        {DEFAULT_ENERGY_KEY: energy, **_info_of(filled), **(info or {})},
    )
    return LabelledStructure(filled, arrays)


def _elements(found: np.ndarray, where: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return atomic numbers as int64, and the different ones, ascending."""
    different = tuple(sorted(set(found.tolist()))) if found.ndim == 1 else ()
    if not different or not 1 <= different[0] <= different[-1] <= _HEAVIEST:
        raise DataSetError(f"{where}: atomic numbers are {found.tolist()!s:.60}; allowed are 1-118")
    if found.dtype.kind in "iu":
        return found.astype(np.int64, copy=False), different
    whole = found.astype(np.int64)
    if (found != whole).any():
        raise DataSetError(f"{where}: atomic numbers are not integers ({found.tolist()!s:.60})")
    return whole, tuple(map(int, different))


def _three(pbc: bool | tuple[bool, bool, bool]) -> tuple[bool, bool, bool]:
    return (pbc, pbc, pbc) if isinstance(pbc, bool) else pbc


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
        array = as_real(values)
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


def divide_wanted(
    wanted: Iterable[int] | None, parts: Iterable[tuple[_Part, int]], path: object
) -> Iterator[tuple[_Part, int, int, Sequence[int]]]:
    """Divide positions among the parts of a data set, in step with reading them.

    Args:
        wanted: Ascending positions, none twice; None for all.
        parts: Files, groups or pages, and how many structures each has; not asked for behind the
            last position that is wanted.
        path: The data set, for messages.

    Yields:
        For each part with any that is wanted: the part, its structures, the position of its
        first structure, and the numbers of those wanted within it.

    Raises:
        ArgumentError: Positions do not ascend, or one is outside the data set.
    """
    places = None if wanted is None else iter(wanted)
    place = None if places is None else next(places, None)
    first = lowest = 0
    for part, n_here in parts:
        numbers: Sequence[int] = range(n_here)
        if places is not None:
            if place is None:
                return
            numbers = []
            while place is not None and lowest <= place < first + n_here:
                numbers.append(place - first)
                lowest, place = place + 1, next(places, None)
        if numbers:
            yield part, n_here, first, numbers
        first += n_here
    if place is not None:
        raise ArgumentError(
            f"position {place} is wanted of {path}; positions must ascend, none twice, and it "
            f"holds {first} structures"
        )


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
