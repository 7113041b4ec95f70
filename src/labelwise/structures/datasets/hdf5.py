"""What the HDF5 formats share: groups of frames of the same atoms, read and written in pieces."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from labelwise.errors import DataSetError, LabelwiseError, MissingDependencyError
from labelwise.structures.datasets.base import (
    DataFile,
    Entry,
    LabelledStructure,
    divide_wanted,
    make_structure,
)
from labelwise.structures.datasets.units import check_total_energy

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: Positions and forces that are in memory at once, when reading and when writing.
WINDOW_BYTES = 2 << 20
_BYTES_PER_ATOM = 6 * 8
_HEAVIEST = 118
#: What h5py raises where a file is damaged or a disk is full.
H5PY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)


class Column(NamedTuple):
    """A dataset that has a number or a row of vectors for each frame.

    Attributes:
        name: Of the dataset.
        scale: By what its numbers are multiplied, to be in eV and Å.
        unit: What its attribute ``units`` must say; None if it has none.
    """

    name: str
    scale: float = 1.0
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class _Block:
    """A group of frames whose datasets are open and of checked shapes; nothing of them is read."""

    entry: Entry
    numbers: np.ndarray
    info: Mapping[str, Any]
    datasets: Mapping[Column, Any]


class GroupedFile(DataFile):
    """An HDF5 file that keeps the frames of each family in a group.

    Args:
        path: The file.

    Raises:
        DataSetError: It is not HDF5, or cut short.
        MissingDependencyError: h5py is not installed.
    """

    #: (n_frames, n_atoms, 3), (n_frames,) and (n_frames, n_atoms, 3); frames are counted by the
    #: positions.
    positions: ClassVar[Column]
    energies: ClassVar[Column]
    forces: ClassVar[Column]
    #: (n_frames,) numbers, eV, that a group may have, and that become info keys.
    extras: ClassVar[tuple[Column, ...]] = ()
    #: Whether frames are the images of a path.
    is_path: ClassVar[bool]

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open(path)

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._file.close()

    def iter_entries(self) -> Iterator[Entry]:
        """Yield what group names, shapes and atomic numbers tell of each structure."""
        parts = self._count_frames()
        for group, n_frames, start, frames in divide_wanted(None, parts, self._path):
            block = self._open_group(group, n_frames)
            for frame in frames:
                yield self._number(block.entry, start, frame)

    def iter_structures(self, wanted: Iterable[int] | None = None) -> Iterator[LabelledStructure]:
        """Yield structures, a group or 2 MB of it at a time; other groups are only counted."""
        parts = self._count_frames()
        for group, n_frames, start, frames in divide_wanted(wanted, parts, self._path):
            block = self._open_group(group, n_frames)
            n_at_once = max(1, WINDOW_BYTES // (_BYTES_PER_ATOM * block.numbers.size))
            for window in _windows(frames, n_at_once):
                yield from self._read_window(block, start, window)

    @abstractmethod
    def _iter_groups(self) -> Iterator[str]:
        """Yield the groups that hold frames, as paths within the file, in a fixed order."""

    @abstractmethod
    def _describe(
        self, group: str, found: Any, numbers: np.ndarray, where: str
    ) -> tuple[Entry, Mapping[str, Any]]:
        """Return what holds for every frame of an open group: an entry, and further info keys."""

    def _open_group(self, group: str, n_frames: int) -> _Block:
        where = self._where(group)
        with reading_errors(where):
            found = self._file[group]
            extras = [column for column in self.extras if column.name in found]
        numbers = read_numbers(found, where)
        entry, info = self._describe(group, found, numbers, where)
        vectors = (n_frames, numbers.size, 3)
        shapes = {self.positions: vectors, self.energies: (n_frames,), self.forces: vectors}
        shapes |= dict.fromkeys(extras, (n_frames,))
        return _Block(
            entry._replace(n_atoms=numbers.size, elements=tuple(np.unique(numbers).tolist())),
            numbers,
            info,
            {column: _get_column(found, column, where, shapes[column]) for column in shapes},
        )

    def _where(self, group: str) -> str:
        return f"{self._path}: {group.removeprefix('/data/')}"

    def _count_frames(self) -> Iterator[tuple[str, int]]:
        if not self._file:
            raise DataSetError(f"{self._path} was closed; open it again")
        for group in self._iter_groups():
            where = self._where(group)
            with reading_errors(where):
                found = self._file.get(group)
            if not hasattr(found, "keys"):
                raise DataSetError(f"{where}: not a group of structures")
            shape = get_dataset(found, self.positions.name, where).shape
            if not shape:
                raise DataSetError(f"{where}: {self.positions.name!r} is one number, not an array")
            yield group, shape[0]

    def _number(self, entry: Entry, start: int, frame: int) -> Entry:
        order = frame if self.is_path else None
        return entry._replace(position=start + frame, name=f"{entry.name}/{frame}", order=order)

    def _read_window(
        self, block: _Block, start: int, window: Sequence[int]
    ) -> Iterator[LabelledStructure]:
        first = window[0]
        group = f"{self._path}: {block.entry.name}"
        with reading_errors(group):
            read = {
                column: np.asarray(dataset[first : window[-1] + 1], dtype=np.float64) * column.scale
                for column, dataset in block.datasets.items()
            }
        energies = read[self.energies]
        if np.isfinite(energies[0]):
            check_total_energy(block.numbers.tolist(), float(energies[0]), f"{group}/{first}")
        extras = [column for column in self.extras if column in read]
        for frame in window:
            row = frame - first
            yield make_structure(
                self._number(block.entry, start, frame),
                f"{group}/{frame}",
                numbers=block.numbers,
                positions=read[self.positions][row],
                energy=energies[row],
                forces=read[self.forces][row].copy(),  # a view would keep the whole window
                info={**block.info, **{each.name: float(read[each][row]) for each in extras}},
            )


def _get_column(group: Any, column: Column, where: str, shape: tuple[int, ...]) -> Any:
    """Return a dataset after a check of its shape and unit."""
    dataset = get_dataset(group, column.name, where, *shape)
    if column.unit is None:
        return dataset
    with reading_errors(where):
        units = dataset.attrs.get("units")
    units = units.decode() if isinstance(units, bytes) else units
    if units != column.unit:
        raise DataSetError(
            f"{where}: {column.name!r} has units {units!r}; the format has {column.unit!r}, and "
            "says so in the dataset's attribute 'units'"
        )
    return dataset


def recognise_hdf5(path: Path, suffix: str, is_laid_out: Callable[[Any], bool]) -> bool:
    """Tell whether a path is an HDF5 file of one layout.

    Args:
        path: Any path.
        suffix: Files with this suffix that cannot be opened are taken, so that opening them
            says what is wrong.
        is_laid_out: Judges the open file by the names that it holds.

    Raises:
        MissingDependencyError: It is HDF5, and h5py is not installed.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(_SIGNATURE)) != _SIGNATURE:
                return False
    except OSError:
        return False
    try:
        with import_h5py("reading HDF5").File(path, "r") as file:
            return is_laid_out(file)
    except H5PY_ERRORS as error:
        if isinstance(error, LabelwiseError):
            raise
        return path.suffix.lower() == suffix


def get_dataset(group: Any, name: str, where: str, *shape: int) -> Any:
    """Return a dataset of numbers after a check of its shape.

    Args:
        group: An open group.
        name: The dataset's.
        where: File and group, for messages.
        shape: As it must be; nothing for any.

    Raises:
        DataSetError: It is missing, is not an array of numbers, or has another shape.
    """
    with reading_errors(where):
        dataset = find_dataset(group, name)
        if dataset is None:
            present = ", ".join(group) or "nothing"
            raise DataSetError(f"{where}: there is no dataset {name!r}; here are: {present:.200}")
        if dataset.dtype.kind not in "fiu":
            raise DataSetError(f"{where}: {name!r} holds {dataset.dtype}, not numbers")
    if shape and dataset.shape != shape:
        raise DataSetError(f"{where}: {name!r} has shape {dataset.shape}; expected {shape}")
    return dataset


def find_dataset(group: Any, name: str) -> Any | None:
    """Return a dataset, None where there is none; in a third of the time of ``group.get``."""
    h5py = import_h5py("reading HDF5")
    try:
        return h5py.Dataset(h5py.h5d.open(group.id, name.encode()))
    except KeyError:
        return None


def read_numbers(group: Any, where: str) -> np.ndarray:
    """Return a group's ``atomic_numbers``, (n_atoms,) int64.

    Raises:
        DataSetError: They are missing, not a list of integers, or not those of elements.
    """
    dataset = get_dataset(group, "atomic_numbers", where)
    with reading_errors(where):
        numbers = dataset[()]
    if dataset.ndim != 1 or dataset.size == 0 or dataset.dtype.kind not in "iu":
        raise DataSetError(
            f"{where}: atomic_numbers have shape {dataset.shape} and type {dataset.dtype}; "
            "expected a list of integers"
        )
    if numbers.min() < 1 or numbers.max() > _HEAVIEST:
        raise DataSetError(
            f"{where}: atomic numbers are {numbers.tolist()!s:.60}; allowed are 1-118"
        )
    return np.asarray(numbers, dtype=np.int64)


@contextmanager
def reading_errors(where: str) -> Iterator[None]:
    """Turn what h5py raises into a DataSetError that says where."""
    try:
        yield
    except H5PY_ERRORS as error:
        if isinstance(error, LabelwiseError):
            raise
        raise DataSetError(
            f"{where}: cannot be read ({error}); the file is damaged: fetch it again"
        ) from error


def import_h5py(purpose: str) -> Any:
    """Return h5py, which is installed with the extra ``data``.

    Raises:
        MissingDependencyError: It is not installed; names the purpose.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("h5py", "data", purpose) from error
    return h5py


def _open(path: Path) -> Any:
    h5py = import_h5py("reading HDF5")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataSetError(
            f"{path} cannot be opened as HDF5 ({error}); it is another kind of file, or was cut "
            "short: fetch it again"
        ) from error


def _windows(frames: Sequence[int], n_at_once: int) -> Iterator[Sequence[int]]:
    """Cut ascending frames into parts that each span at most ``n_at_once`` rows of the file."""
    start = 0
    while start < len(frames):
        stop = bisect_left(frames, frames[start] + n_at_once, start)
        yield frames[start:stop]
        start = stop
