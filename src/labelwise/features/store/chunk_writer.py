"""Rows taken in until they make up a chunk, which then appears on disk whole."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float32, UInt8

from labelwise.errors import ArgumentError, WriteError
from labelwise.features.store.chunk_files import sync_path, write_chunk
from labelwise.features.store.columns import RowColumns, column_dtype
from labelwise.features.store.identity import Identity
from labelwise.features.store.names import chunk_name, make_temporary_name, next_chunk_number
from labelwise.features.store.stored_rows import ZARR_DTYPES, split_norms, to_storage

#: Bytes of rows in a chunk: large enough to be read at the disk's speed.
DEFAULT_CHUNK_BYTES = 2**24

#: Called with a chunk's number and the keys of its rows, (k, 16) uint8.
CommitCallback = Callable[[int, UInt8[np.ndarray, "k 16"]], None]


def ignore_commit(_number: int, _keys: UInt8[np.ndarray, "k 16"]) -> None:
    """Tell nobody."""


class ChunkWriter:
    """Appends rows to a feature store, any number of writers and processes at once.

    A chunk is built in a folder of its own and gets its name when all of it is on the disk: it
    is there whole or not at all. Leaving the ``with`` block writes the rows that are in hand.

    Args:
        store: The store's folder, which ``FeatureStore.open`` has made.
        identity: The store's.
        chunk_bytes: Bytes of rows in a chunk; it has at least one row.
        on_commit: Called when a chunk is on disk.

    Raises:
        ArgumentError: ``chunk_bytes`` is below 1.
    """

    def __init__(
        self,
        store: Path,
        identity: Identity,
        *,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        on_commit: CommitCallback = ignore_commit,
    ) -> None:
        if chunk_bytes < 1:
            raise ArgumentError(f"chunk_bytes={chunk_bytes}: at least 1")
        self._store, self._identity, self._on_commit = store, identity, on_commit
        dtype = np.dtype(ZARR_DTYPES[identity.storage_dtype])
        capacity = max(1, chunk_bytes // (identity.width * dtype.itemsize))
        self._rows = np.empty((capacity, identity.width), dtype)
        self._columns = np.zeros(capacity, column_dtype(len(identity.blocks)))
        self._files: dict[str, int] = {}
        self._n_held = 0
        self._numbers: list[int] = []

    @property
    def numbers(self) -> list[int]:
        """Numbers of the chunks that this writer has put on disk, in order."""
        return list(self._numbers)

    @property
    def n_held(self) -> int:
        """Rows that are not on disk yet."""
        return self._n_held

    def append(self, rows: Float32[np.ndarray, "k d"], columns: RowColumns) -> None:
        """Take rows in, and write each chunk that they fill.

        Args:
            rows: (k, d) as the representation gives them, k >= 0; not modified.
            columns: Of k structures.

        Raises:
            ArgumentError: Not as many columns as rows, rows of another width, or a value that
                is not finite. Nothing is taken in.
            WriteError: The disk is full or cannot be written to. Rows up to a chunk stay in
                hand, and those behind them are not taken in.
        """
        if len(rows) != len(columns):
            raise ArgumentError(f"{len(rows)} rows and columns of {len(columns)} structures")
        unit, norms = split_norms(rows, self._identity.blocks)
        stored = to_storage(unit, self._identity.storage_dtype)
        start = 0
        while start < len(rows):
            if self._n_held == len(self._rows):
                self.flush()
            n_taken = min(len(rows) - start, len(self._rows) - self._n_held)
            part = slice(start, start + n_taken)
            held = slice(self._n_held, self._n_held + n_taken)
            self._rows[held] = stored[part]
            self._columns["norms"][held] = norms[part]
            self._hold_columns(held, columns, part)
            self._n_held = held.stop
            start = part.stop
        if self._n_held == len(self._rows):
            self.flush()

    def flush(self) -> None:
        """Write the rows in hand as a chunk, if there are any.

        Raises:
            WriteError: The disk is full or cannot be written to; the rows stay in hand, and the
                chunks that were finished are as they were.
        """
        if self._n_held == 0:
            return
        temporary = self._store / make_temporary_name()
        columns = self._columns[: self._n_held]
        try:
            write_chunk(
                temporary, self._identity, self._rows[: self._n_held], columns, list(self._files)
            )
            number = _give_name(temporary, self._store)
        except OSError as error:
            raise WriteError(
                f"cannot write to the feature store {self._store}: {error.strerror or error}; the "
                "chunks that were finished are safe"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._numbers.append(number)
        self._n_held, self._files = 0, {}
        self._on_commit(number, columns["key"])

    def __enter__(self) -> ChunkWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.flush()
            return
        # What is in hand is good, whatever went wrong; the error in flight matters more.
        with suppress(WriteError):
            self.flush()

    def _hold_columns(self, held: slice, columns: RowColumns, part: slice) -> None:
        self._columns["key"][held] = columns.keys[part]
        self._columns["source_file"][held] = [
            self._files.setdefault(name, len(self._files)) for name in columns.source_file[part]
        ]
        self._columns["source_frame"][held] = columns.source_frame[part]
        self._columns["projections"][held] = columns.projections[part]
        self._columns["species"][held] = columns.species[part]


def _give_name(temporary: Path, store: Path) -> int:
    """Rename a finished chunk to the next number that is free, and return the number.

    Another writer may take the number first; its chunk is a folder with content, over which
    the system renames nothing.
    """
    number = next_chunk_number(store)
    while True:
        try:
            temporary.rename(store / chunk_name(number))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            number += 1
        else:
            break
    # Not every file system lets a folder be synchronised; the chunk itself is on the disk.
    with suppress(OSError):
        sync_path(store)
    return number
