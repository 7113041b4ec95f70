"""Rows of a feature store in an order of the caller's choice, read when they are asked for."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from labelwise.errors import ArgumentError
from labelwise.features.store.chunk_files import (
    ChunkRecord,
    DamagedChunkError,
    read_columns,
    read_record,
    read_rows,
    read_some_rows,
)
from labelwise.features.store.columns import RowColumns
from labelwise.features.store.identity import Identity
from labelwise.features.store.names import chunk_name
from labelwise.features.store.stored_rows import (
    StoredRows,
    find_scales,
    from_storage,
    scale_blocks,
)

#: Bytes of float32 rows in a piece.
DEFAULT_PIECE_BYTES = 2**24
#: Chunks whose rows are kept once read.
_N_KEPT_CHUNKS = 2
#: Chunks whose columns are kept once read.
_N_KEPT_COLUMNS = 64
#: When fewer than one row in so many of a chunk is asked for, the rows are read one by one.
_SPARSE = 8

T = TypeVar("T")


@dataclass(frozen=True)
class ChunkTable:
    """The chunks that a view reads from.

    Attributes:
        numbers: Of each chunk.
        n_rows: Of each chunk.
        seals: By which a chunk is told from another of its number.
    """

    numbers: Sequence[int]
    n_rows: Sequence[int]
    seals: Sequence[str]


class StoreView:
    """Rows of a feature store, normalised for a kernel; a ``RowSource``.

    Rows are float32, have unit blocks (``cosine``) or their lengths over a common one
    (``none``), and each block is multiplied by the square root of its weight, as
    ``normalise_rows`` does. Made by ``FeatureStore.view``.

    Several threads may read at once. A view that is pickled reads the same files where it is
    unpickled, without opening the store. A chunk that is damaged or gone raises
    ``DamagedChunkError`` when it is read.

    Args:
        store: The store's folder.
        identity: The store's.
        table: The chunks that are read from.
        chunk_of: (n,) int32, each row's chunk, as its place in the table.
        row_of: (n,) int32, each row's place in its chunk.
        common_norms: (n_blocks,) float64 for ``none``; None for ``cosine``.
        piece_bytes: Bytes of float32 rows in a piece; it has at least one row.
    """

    def __init__(
        self,
        store: Path,
        identity: Identity,
        table: ChunkTable,
        chunk_of: Int32[np.ndarray, " n"],
        row_of: Int32[np.ndarray, " n"],
        *,
        common_norms: Float64[np.ndarray, " b"] | None = None,
        piece_bytes: int = DEFAULT_PIECE_BYTES,
    ) -> None:
        if piece_bytes < 1:
            raise ArgumentError(f"piece_bytes={piece_bytes}: at least 1")
        self._store, self._identity, self._table = store, identity, table
        self._chunk_of, self._row_of = chunk_of, row_of
        self._common_norms = common_norms
        self._piece_rows = max(1, piece_bytes // (4 * identity.width))
        self._open_caches()

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._chunk_of)

    @property
    def width(self) -> int:
        """Entries of a row, d."""
        return self._identity.width

    def pieces(self) -> list[slice]:
        """Return slices of 0 … n, in order, that are cheap to read at once.

        A piece ends with a chunk where this does not make it less than half as long as it may
        be.
        """
        starts = (np.flatnonzero(np.diff(self._chunk_of)) + 1).tolist()
        pieces = []
        start = 0
        while start < len(self):
            stop = min(start + self._piece_rows, len(self))
            place = bisect_right(starts, stop) - 1
            if stop < len(self) and place >= 0 and 2 * (starts[place] - start) > self._piece_rows:
                stop = starts[place]
            pieces.append(slice(start, stop))
            start = stop
        return pieces

    def read(self, rows: slice) -> Float32[np.ndarray, "r d"]:
        """Return consecutive rows as a fresh array.

        Args:
            rows: A slice of 0 … n, of step 1.

        Raises:
            ArgumentError: The slice has another step.
            DamagedChunkError: A chunk is not as it was written.
            ReadError: The store cannot be read.
        """
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ArgumentError(f"rows={rows}: only a step of 1 can be read; use gather")
        return self._read_rows(self._chunk_of[start:stop], self._row_of[start:stop])

    def gather(self, idx: Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "k d"]:
        """Return rows in any order, with repeats, as a fresh array.

        Args:
            idx: (k,), 0 <= idx < n.

        Raises:
            ArgumentError: An index is out of range.
            DamagedChunkError: A chunk is not as it was written.
            ReadError: The store cannot be read.
        """
        if len(idx) and not (idx.min() >= 0 and idx.max() < len(self)):
            raise ArgumentError(
                f"idx is from {idx.min()} to {idx.max()}; allowed are 0 to {len(self) - 1}"
            )
        return self._read_rows(self._chunk_of[idx], self._row_of[idx])

    def __getstate__(self) -> dict[str, Any]:
        hidden = {"_rows", "_columns"}
        return {name: value for name, value in self.__dict__.items() if name not in hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_caches()

    def _open_caches(self) -> None:
        self._rows: _RecentlyRead[StoredRows] = _RecentlyRead(_N_KEPT_CHUNKS)
        self._columns: _RecentlyRead[tuple[ChunkRecord, RowColumns]] = _RecentlyRead(
            _N_KEPT_COLUMNS
        )

    def _read_rows(
        self, chunk_of: Int32[np.ndarray, " r"], row_of: Int32[np.ndarray, " r"]
    ) -> Float32[np.ndarray, "r d"]:
        parts = list(_iter_parts(chunk_of))
        if len(parts) == 1:
            return self._read_part(int(chunk_of[0]), row_of)
        rows = np.empty((len(row_of), self.width), np.float32)
        for part in parts:
            first, last = int(part[0]), int(part[-1])
            # A slice is copied at the memory's speed, an array of places is not.
            where = slice(first, last + 1) if last - first + 1 == len(part) else part
            rows[where] = self._read_part(int(chunk_of[first]), row_of[where])
        return rows

    def _read_part(self, place: int, rows: Int32[np.ndarray, " r"]) -> Float32[np.ndarray, "r d"]:
        """Return some rows of one chunk as a fresh array, in the order asked for."""
        stored = self._read_stored(place, rows)
        floats = from_storage(stored, self._identity.storage_dtype)
        norms = None
        if self._common_norms is not None:
            norms = self._read_columns(place)[1].norms[rows]
        scale_blocks(
            floats,
            self._identity.blocks,
            find_scales(self._identity.blocks, norms, self._common_norms),
        )
        return floats

    def _read_stored(self, place: int, rows: Int32[np.ndarray, " r"]) -> StoredRows:
        """Return rows of one chunk as stored, which nobody else holds."""
        n_rows = self._table.n_rows[place]
        chunk = self._rows.get(place)
        if chunk is not None:
            return _take(chunk, rows)
        if len(rows) * _SPARSE < n_rows:
            record, columns = self._read_columns(place)
            wanted = rows.astype(np.int64)
            checksums = columns.row_checksums[wanted]
            return read_some_rows(self._folder(place), record, wanted, checksums)
        chunk = read_rows(self._folder(place), self._read_record(place))
        first = int(rows[0])
        if int(rows[-1]) == n_rows - 1 and (np.diff(rows) == 1).all():
            # Who goes through the store in order needs nothing of this chunk again.
            tail: StoredRows = chunk[first:]
            return tail
        self._rows.put(place, chunk)
        return _take(chunk, rows)

    def _read_record(self, place: int) -> ChunkRecord:
        record = read_record(self._folder(place))
        if record.seal != self._table.seals[place]:
            raise DamagedChunkError(
                self._folder(place), "it is another chunk than when the store was opened"
            )
        return record

    def _read_columns(self, place: int) -> tuple[ChunkRecord, RowColumns]:
        known = self._columns.get(place)
        if known is None:
            record = self._read_record(place)
            known = record, read_columns(self._folder(place), record)
            self._columns.put(place, known)
        return known

    def _folder(self, place: int) -> Path:
        return self._store / chunk_name(self._table.numbers[place])


class _RecentlyRead(Generic[T]):
    """The last few things that were read, for several threads."""

    def __init__(self, n_kept: int) -> None:
        self._n_kept = n_kept
        self._lock = threading.Lock()
        self._things: OrderedDict[int, T] = OrderedDict()

    def get(self, place: int) -> T | None:
        with self._lock:
            if place in self._things:
                self._things.move_to_end(place)
            return self._things.get(place)

    def put(self, place: int, thing: T) -> None:
        with self._lock:
            self._things[place] = thing
            while len(self._things) > self._n_kept:
                self._things.popitem(last=False)


def _take(chunk: StoredRows, rows: Int32[np.ndarray, " r"]) -> StoredRows:
    """Return a copy of some rows."""
    taken: StoredRows = chunk[rows]
    return taken


def _iter_parts(chunk_of: Int32[np.ndarray, " r"]) -> Iterator[Int64[np.ndarray, " _"]]:
    """Yield the positions of the rows of each chunk."""
    if len(chunk_of) == 0:
        return
    order = np.argsort(chunk_of, kind="stable")
    cuts = np.flatnonzero(np.diff(chunk_of[order])) + 1
    yield from np.split(order, cuts)
