"""What the HDF5 formats share in writing: groups that grow in pieces, files that come whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labelwise.errors import LabelwiseError, WriteError
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.datasets.hdf5 import H5PY_ERRORS, WINDOW_BYTES, import_h5py


class Column(NamedTuple):
    """Type of a dataset and its attribute ``units``; None for none."""

    dtype: str
    units: str | None = None


class FrameWriter:
    """Appends frames to the datasets of one group, 2 MB at a time.

    A group that is smaller than that becomes contiguous datasets, as the publishers write them;
    a larger one chunked datasets, which are read the same.

    Args:
        group: The open group.
        columns: The datasets by name.
        where: File and group, for messages.
    """

    def __init__(self, group: Any, columns: Mapping[str, Column], where: str) -> None:
        self._group, self._columns, self._where = group, columns, where
        self._rows: list[tuple[np.ndarray, ...]] = []
        self._n_bytes = 0

    def append(self, *values: float | np.ndarray) -> None:
        """Add a frame: one value for each column, in the units of the file."""
        row = tuple(
            np.array(value, dtype=column.dtype)
            for value, column in zip(values, self._columns.values(), strict=True)
        )
        if self._n_bytes > WINDOW_BYTES:
            self._flush(is_last=False)
        self._rows.append(row)
        self._n_bytes += sum(value.nbytes for value in row)

    def finish(self) -> None:
        """Write what is still in memory."""
        self._flush(is_last=True)

    def _flush(self, *, is_last: bool) -> None:
        with writing_errors(self._where):
            for values, (name, column) in zip(
                zip(*self._rows, strict=True), self._columns.items(), strict=True
            ):
                rows = np.array(values, dtype=column.dtype)
                if name in self._group:
                    dataset = self._group[name]
                    dataset.resize(len(dataset) + len(rows), axis=0)
                    dataset[-len(rows) :] = rows
                    continue
                longest = None if is_last else (None, *rows.shape[1:])
                dataset = self._group.create_dataset(name, data=rows, maxshape=longest)
                if column.units is not None:
                    dataset.attrs["units"] = column.units
        self._rows.clear()
        self._n_bytes = 0


@contextmanager
def create_file(path: Path) -> Iterator[Any]:
    """Open a new HDF5 file that gets its name only when it is whole.

    Args:
        path: Where to write; missing folders are made, a file there is replaced.

    Yields:
        The open file, under a temporary name beside the path; deleted if anything is raised.

    Raises:
        WriteError: The folder cannot be written to, the disk is full, or the path is a
            directory.
        MissingDependencyError: h5py is not installed.
    """
    h5py = import_h5py("writing HDF5")
    if path.is_dir():
        raise WriteError(f"cannot write {path}: it is a directory")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with writing_errors(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = h5py.File(temporary, "x")
        try:
            yield file
        finally:
            with writing_errors(str(path)):
                file.close()
        with writing_errors(str(path)):
            _sync(temporary)
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def writing_errors(where: str) -> Iterator[None]:
    """Turn what h5py and the system raise into a WriteError that says where."""
    try:
        yield
    except H5PY_ERRORS as error:
        if isinstance(error, LabelwiseError):
            raise
        number = getattr(error, "errno", None)  # h5py's own text repeats it in six lines
        reason = error if number is None else os.strerror(number)
        raise WriteError(f"cannot write {where}: {reason}") from error


def iter_families(
    path: Path, structures: Iterable[LabelledStructure]
) -> Iterator[tuple[str, LabelledStructure, Iterator[LabelledStructure]]]:
    """Yield each family: its name, its first structure, and all of them one after the other.

    Args:
        path: What is written, for messages.
        structures: Molecules whose families come together.

    Raises:
        WriteError: A structure has no family or a cell, differs in its atoms from the others of
            its family, or belongs to a family that has come before.
    """
    without_cells = (_refuse_cell(path, structure) for structure in structures)
    seen: set[str] = set()
    for family, members in groupby(without_cells, key=lambda each: each.entry.family):
        yield _open_family(path, family, members, seen)


def check_group_name(name: str, where: str) -> None:
    """Raise unless HDF5 takes a name for one group.

    Raises:
        WriteError: It is empty, a dot, or holds a slash or a null character.
    """
    if name in ("", ".") or "/" in name or "\0" in name:
        raise WriteError(
            f"cannot write {where}: {name!r} cannot be the name of a group in HDF5 (a slash, or "
            "nothing)"
        )


def _open_family(
    path: Path, family: str | None, members: Iterator[LabelledStructure], seen: set[str]
) -> tuple[str, LabelledStructure, Iterator[LabelledStructure]]:
    first = next(members)
    if family is None:
        raise WriteError(
            f"cannot write {path}: structure {first.entry.name!r} has no family, and the format "
            "keeps structures by family"
        )
    if family in seen:
        raise WriteError(
            f"cannot write {path}: family {family!r} comes a second time, at structure "
            f"{first.entry.name!r}; sort the structures by family"
        )
    seen.add(family)
    return family, first, chain([first], _check_members(path, first, members))


def _check_members(
    path: Path, first: LabelledStructure, members: Iterator[LabelledStructure]
) -> Iterator[LabelledStructure]:
    for member in members:
        if not np.array_equal(member.atoms.numbers, first.atoms.numbers):
            raise WriteError(
                f"cannot write {path}: structure {member.entry.name!r} has other atoms than the "
                f"first of its family {member.entry.family!r}, or another order of them"
            )
        yield member


def _refuse_cell(path: Path, structure: LabelledStructure) -> LabelledStructure:
    if structure.atoms.pbc.any() or structure.atoms.cell.array.any():
        raise WriteError(
            f"cannot write {path}: structure {structure.entry.name!r} has a cell, which the "
            "format has no place for"
        )
    return structure


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
