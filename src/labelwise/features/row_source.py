"""Feature rows on disk, in the order of a pool: what a kernel needs of them, and a file of them."""

from __future__ import annotations

from io import RawIOBase
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from labelwise.errors import ArgumentError, ReadError
from labelwise.features.row_parts import chunks

_PIECE_BYTES = 2**25


@runtime_checkable
class RowSource(Protocol):
    """n rows φ̃ of length d on disk, normalised for a kernel, in the order of a pool."""

    @property
    def width(self) -> int:
        """Length d of a row."""
        ...

    def __len__(self) -> int:
        """Count the rows."""
        ...

    def pieces(self) -> list[slice]:
        """Cut 0..n, in order and without gaps, into slices that are cheap to read at once."""
        ...

    def read(self, rows: slice) -> Float32[np.ndarray, "r d"]:
        """Return some consecutive rows, (r, d), fresh. Called from another thread too."""
        ...

    def gather(self, idx: Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "k d"]:
        """Return rows in any order, (k, d), fresh."""
        ...


class NpyRows:
    """The rows of an ``.npy`` file, which are read as they are, without mapping the file.

    Args:
        path: A two-dimensional C-ordered float32 array, (n, d), normalised for the kernel.
        piece_bytes: How much to read at once.

    Raises:
        ReadError: The file cannot be read or holds another kind of array.
    """

    def __init__(self, path: Path | str, *, piece_bytes: int = _PIECE_BYTES) -> None:
        self._path = Path(path)
        shape, self._offset = _read_npy_header(self._path)
        self._n, self._width = shape
        self._rows_per_piece = max(1, piece_bytes // (4 * self._width))

    @property
    def width(self) -> int:
        """Length d of a row."""
        return self._width

    def __len__(self) -> int:
        """Count the rows."""
        return self._n

    def pieces(self) -> list[slice]:
        """Cut 0..n into slices of ``piece_bytes``."""
        return chunks(self._n, self._rows_per_piece)

    def read(self, rows: slice) -> Float32[np.ndarray, "r d"]:
        """Return consecutive rows, (r, d).

        Raises:
            ReadError: The file has become shorter, or cannot be read.
        """
        start, stop = slice_bounds(rows, self._n)
        return self._read_runs(np.arange(start, stop), [slice(0, stop - start)])

    def gather(self, idx: Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "k d"]:
        """Return rows in any order, (k, d); consecutive ones are read at once.

        Raises:
            ReadError: The file has become shorter, or cannot be read.
        """
        ends = np.flatnonzero(np.diff(idx) != 1) + 1
        bounds = [0, *ends.tolist(), len(idx)]
        runs = [slice(a, b) for a, b in pairwise(bounds)]
        return self._read_runs(idx, runs)

    def _read_runs(
        self, idx: Int64[np.ndarray, " k"], runs: list[slice]
    ) -> Float32[np.ndarray, "k d"]:
        out = np.empty((len(idx), self._width), dtype=np.float32)
        try:
            with self._path.open("rb", buffering=0) as file:
                for run in runs:
                    if run.stop > run.start:
                        file.seek(self._offset + 4 * self._width * int(idx[run.start]))
                        _read_fully(file, out[run], self._path)
        except OSError as error:
            raise ReadError(f"{self._path} cannot be read: {error}") from error
        return out


def _read_fully(file: RawIOBase, out: Float32[np.ndarray, "r d"], path: Path) -> None:
    view = out.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise ReadError(f"{path} ends too early: write it again")
        done += count


def _read_npy_header(path: Path) -> tuple[tuple[int, int], int]:
    """Return the shape of the array in a file, and where its numbers begin."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            header = read if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = header(file)
            offset = file.tell()
    except (OSError, ValueError) as error:
        raise ReadError(f"{path} cannot be read as an .npy file: {error}") from error
    if len(shape) != 2 or is_fortran or dtype != np.dtype("<f4") or shape[1] == 0:
        raise ReadError(
            f"{path} holds an array of shape {shape} and type {dtype}: allowed are "
            "C-ordered float32 arrays of shape (n, d) with d >= 1"
        )
    return (shape[0], shape[1]), offset


def slice_bounds(rows: slice, n: int) -> tuple[int, int]:
    """Return start and stop of a slice of n structures."""
    start, stop, step = rows.indices(n)
    if step != 1:
        raise ArgumentError(f"a slice of rows with step {step}: allowed are steps of 1")
    return start, max(start, stop)
