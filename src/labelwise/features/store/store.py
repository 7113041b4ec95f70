"""Rows of many structures on disk, found by the structures they belong to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8

from labelwise.errors import ArgumentError, ReadError
from labelwise.features.frames import FrameTable
from labelwise.features.representations.normalisation import check_normalisation
from labelwise.features.store.base import RowStore
from labelwise.features.store.chunk_files import (
    DamagedChunkError,
    read_columns,
    read_record,
    read_rows,
)
from labelwise.features.store.chunk_writer import append_chunk
from labelwise.features.store.columns import RowColumns
from labelwise.features.store.identity import Identity
from labelwise.features.store.key_index import KeyIndex
from labelwise.features.store.listings import (
    read_listing,
    remove_listing,
    write_listing,
)
from labelwise.features.store.names import (
    METADATA_FILE,
    bad_name,
    chunk_name,
    list_bad_names,
    list_chunk_numbers,
)
from labelwise.features.store.root import (
    Say,
    check_identity,
    create_root,
    find_identity,
    remove_leftovers,
    warn,
    write_root,
)
from labelwise.features.store.stored_rows import from_storage
from labelwise.features.store.verifying import Damage
from labelwise.features.store.view import DEFAULT_PIECE_BYTES, ChunkTable, StoreView


@dataclass(frozen=True)
class _Chunk:
    """A chunk as this process knows it; its rows have the places from ``first`` on."""

    number: int
    first: int
    n_rows: int
    seal: str


class FeatureStore(RowStore):
    """A folder of rows in chunks, a bag from which rows are taken by structure key.

    A row's *place* is its number over all chunks in the order in which this object has met
    them. Places stay what they are as chunks are added or set aside; another object may count
    otherwise.

    Made by ``open``. Several threads may use one store.
    """

    def __init__(self, path: Path, identity: Identity, say: Say, *, mend: bool = True) -> None:
        self._path, self._identity, self._say, self._mends = path, identity, say, mend
        self._lock = threading.RLock()
        self._chunks: list[_Chunk] = []
        self._gone: set[int] = set()
        self._index = KeyIndex()

    @classmethod
    def open(
        cls,
        path: Path,
        identity: Identity | None = None,
        *,
        create: bool = False,
        mend: bool = True,
        say: Say = warn,
    ) -> FeatureStore:
        """Open a feature store, or make one.

        Chunks whose metadata or columns are damaged are set aside, what killed writers left
        is removed, and the root's metadata are made anew from a chunk if need be. The rows
        themselves are checked when they are read.

        Args:
            path: The folder.
            identity: What the rows must be; None takes any store.
            create: Make the store if there is none; needs an identity.
            mend: Whether to do what is said above; else nothing in the folder is changed, and
                what is damaged is only told of and passed over.
            say: Told of what was found damaged; warns by default.

        Returns:
            The store.

        Raises:
            ReadError: There is no store, something else is in the way, or nothing in the
                folder is intact.
            ArgumentError: The store is of another identity; the message names what differs.
            WriteError: The store cannot be made.
        """
        found = find_identity(path, say, mend=mend)
        if found is None:
            if not create:
                raise ReadError(f"there is no feature store at {path}; check the path")
            if identity is None:
                raise ArgumentError("a new feature store needs an identity; none was given")
            create_root(path, identity)
            found = identity
        if identity is not None:
            check_identity(path, found, identity)
        store = cls(path, found, say, mend=mend)
        if mend:
            remove_leftovers(path)
        store.refresh()
        return store

    #: A lot of frames is written as one chunk.
    takes_lots = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the same store where it is sent to."""
        return _open_again, (self._path, self._identity)

    def __len__(self) -> int:
        """Count the rows that are not set aside."""
        return sum(chunk.n_rows for chunk in self._present())

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    @property
    def identity(self) -> Identity:
        """Whose rows these are."""
        return self._identity

    @property
    def n_features(self) -> int:
        """Entries of a row, d."""
        return self._identity.width

    @property
    def chunk_numbers(self) -> list[int]:
        """Numbers of the chunks that are not set aside, in the order of their places."""
        return [chunk.number for chunk in self._present()]

    def append(self, frames: FrameTable, rows: Float32[np.ndarray, "k d"]) -> None:
        """Write the rows of k frames as one chunk.

        Args:
            frames: Whose rows they are.
            rows: As the representation gives them, finite; not modified.

        Raises:
            WriteError: The store cannot be written to.
        """
        self.append_rows(rows, frames.keys)

    def append_rows(self, rows: Float32[np.ndarray, "k d"], keys: UInt8[np.ndarray, "_ 16"]) -> int:
        """Write k >= 1 rows as one chunk, and return its number; see ``append_chunk``."""
        number = append_chunk(self._path, self._identity, rows, keys)
        record = read_record(self._path / chunk_name(number))
        with self._lock:
            if all(chunk.number != number for chunk in self._chunks):
                chunk = _Chunk(number, self._n_places(), record.n_rows, record.seal)
                self._append(chunk, keys)
        return number

    def refresh(self) -> None:
        """Take in the chunks that other processes have added since; damaged ones are set aside.

        Raises:
            ReadError: The store cannot be read.
        """
        with self._lock:
            known = {chunk.number for chunk in self._chunks} | self._gone
            for number in list_chunk_numbers(self._path):
                if number not in known:
                    self._take_in(number)

    def find(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, " n"]:
        """Return the places of structures' rows, (n,); -1 where there is none.

        Args:
            keys: (n, 16). Of a key with several rows the first place is given.
        """
        with self._lock:
            return self._index.find(keys)

    def read_chunk(self, number: int) -> Float32[np.ndarray, "k d"]:
        """Return the unit rows of a chunk, (k, d), without the weights of the blocks.

        Args:
            number: One of ``chunk_numbers``.

        Raises:
            DamagedChunkError: The chunk is not as it was written.
            ReadError: The store cannot be read.
        """
        folder = self._path / chunk_name(number)
        stored = read_rows(folder, read_record(folder))
        return from_storage(stored, self._identity.storage_dtype)

    def read_columns(self, number: int) -> RowColumns:
        """Return what is known of each row of a chunk.

        Args:
            number: One of ``chunk_numbers``.

        Raises:
            DamagedChunkError: The chunk is not as it was written.
            ReadError: The store cannot be read.
        """
        folder = self._path / chunk_name(number)
        return read_columns(folder, read_record(folder))

    def read_norms(self, places: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n b"]:
        """Return the norms of the blocks of raw rows, (n, n_blocks), in the rows' unit.

        Args:
            places: (n,), in any order.

        Raises:
            ArgumentError: A place without a row.
            DamagedChunkError: A chunk is not as it was written.
            ReadError: The store cannot be read.
        """
        table, chunk_of, row_of = self._locate(places)
        norms = np.empty((len(places), len(self._identity.blocks)), np.float64)
        order = np.argsort(chunk_of, kind="stable")
        stops = np.searchsorted(chunk_of[order], np.arange(len(table.numbers)), side="right")
        start = 0
        for number, stop in zip(table.numbers, stops.tolist(), strict=True):
            rows = order[start:stop]
            norms[rows] = self.read_columns(number).norms[row_of[rows]]
            start = stop
        return norms

    def view(
        self,
        places: Int64[np.ndarray, " n"],
        *,
        normalise: str = "cosine",
        common_norms: Float64[np.ndarray, " b"] | None = None,
        piece_bytes: int = DEFAULT_PIECE_BYTES,
    ) -> StoreView:
        """Return the rows at some places as a source of rows for a kernel.

        Args:
            places: (n,), in the order that the rows shall have.
            normalise: ``cosine`` or ``none``, see ``normalise_rows``.
            common_norms: (n_blocks,) for ``none``: ``find_common_norms`` of the norms of all
                labelled structures and the whole pool.
            piece_bytes: Bytes of float32 rows in a piece.

        Raises:
            ArgumentError: A place without a row, or an argument is unknown or missing.
        """
        check_normalisation(normalise)
        if (normalise == "none") != (common_norms is not None):
            raise ArgumentError(
                f"normalise={normalise!r} and common_norms={common_norms}: 'none' needs the common "
                "norms of find_common_norms, 'cosine' takes none"
            )
        table, chunk_of, row_of = self._locate(places)
        return StoreView(
            self._path,
            self._identity,
            table,
            chunk_of,
            row_of,
            common_norms=common_norms,
            piece_bytes=piece_bytes,
        )

    def set_aside(self, number: int) -> None:
        """Take a damaged chunk out: its folder is renamed, its rows count as absent.

        A chunk that another process has set aside already, or that cannot be renamed, is
        forgotten by this object all the same.

        Args:
            number: The chunk's, as in ``DamagedChunkError.number``.
        """
        with self._lock:
            for chunk in self._chunks:
                if chunk.number == number and number not in self._gone:
                    self._index.remove(chunk.first, chunk.first + chunk.n_rows)
            self._gone.add(number)
            self._rename_aside(number)

    def load_listing(self, file_hash: str, file: str = "") -> FrameTable | None:
        """Return what an input file holds, if that was saved; a damaged listing is removed.

        Args:
            file_hash: ``hash_file`` of the file, blake2b.
            file: The file's name now.

        Raises:
            ArgumentError: ``file_hash`` is not such a hash.
            ReadError: The store cannot be read.
        """
        try:
            return read_listing(self._path, file_hash, file)
        except ArgumentError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            remove_listing(self._path, file_hash)
            self._say(f"{error}; it was removed, and the input file is read again")
            return None

    def save_listing(self, file_hash: str, listing: FrameTable) -> None:
        """Keep what an input file holds.

        Args:
            file_hash: ``hash_file`` of the file, blake2b.
            listing: Its frames.

        Raises:
            ArgumentError: ``file_hash`` is not such a hash.
            WriteError: The disk is full or cannot be written to.
        """
        write_listing(self._path, file_hash, listing)

    def describe(self) -> dict[str, Any]:
        """Return identity, rows, chunks, bytes on disk and chunks set aside, as plain data."""
        folders = [self._path / chunk_name(number) for number in self.chunk_numbers]
        files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
        return {
            "identity": self._identity.to_record(),
            "rows": len(self),
            "chunks": len(folders),
            "bytes": sum(path.stat().st_size for path in files),
            "damaged": list_bad_names(self._path),
        }

    def mend(self, damage: Damage) -> str:
        """Do away with a damage: what is taken out is made again when it is needed.

        Args:
            damage: One of those of ``verify_store``.

        Returns:
            What was done, in words; empty if nothing can be done.

        Raises:
            WriteError: The root cannot be written to.
        """
        if damage.number is not None:
            self.set_aside(damage.number)
            return "it was set aside; its rows are computed again when needed"
        if damage.listing:
            remove_listing(self._path, damage.listing)
            return "it was removed; the input file is read again when needed"
        if damage.name == METADATA_FILE:
            write_root(self._path, self._identity)
            return "it was made anew"
        return ""

    def _locate(
        self, places: Int64[np.ndarray, " n"]
    ) -> tuple[ChunkTable, Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
        """Return the chunks with these places, and each place's chunk and row."""
        with self._lock:
            chunks, gone = list(self._chunks), set(self._gone)
        if len(places) == 0:
            return ChunkTable([], [], []), np.empty(0, np.int32), np.empty(0, np.int32)
        if not (places.min() >= 0 and places.max() < self._n_places()):
            raise ArgumentError(
                f"places are from {places.min()} to {places.max()}; those of the store's rows are "
                f"0 to {self._n_places() - 1}: compute the rows that find gives as -1"
            )
        firsts = np.array([chunk.first for chunk in chunks], dtype=np.int64)
        home = np.searchsorted(firsts, places, side="right") - 1
        is_used = np.bincount(home, minlength=len(chunks)) > 0
        chunk_of = (np.cumsum(is_used) - 1)[home]
        table = [chunks[i] for i in np.flatnonzero(is_used).tolist()]
        lost = [chunk_name(chunk.number) for chunk in table if chunk.number in gone]
        if lost:
            raise ArgumentError(
                f"some places are in {', '.join(lost)}, which was set aside; find the keys again"
            )
        return (
            ChunkTable(
                [chunk.number for chunk in table],
                [chunk.n_rows for chunk in table],
                [chunk.seal for chunk in table],
            ),
            chunk_of.astype(np.int32),
            (places - firsts[home]).astype(np.int32),
        )

    def _present(self) -> Iterator[_Chunk]:
        with self._lock:
            chunks = list(self._chunks)
        return (chunk for chunk in chunks if chunk.number not in self._gone)

    def _take_in(self, number: int) -> None:
        """Read a chunk's columns; set the chunk aside if they are damaged or another's."""
        folder = self._path / chunk_name(number)
        try:
            record = read_record(folder)
            difference = self._identity.explain_difference(record.identity)
            if difference:
                raise DamagedChunkError(folder, f"its rows are of another store: {difference}")
            keys = read_columns(folder, record).keys
        except DamagedChunkError as error:
            if not folder.exists():  # another process has set it aside just now
                return
            self._pass_over(number, error)
            return
        self._append(_Chunk(number, self._n_places(), record.n_rows, record.seal), keys)

    def _pass_over(self, number: int, error: DamagedChunkError) -> None:
        chunk = f"chunk {error.folder.name} of the feature store {self._path}"
        if self._mends:
            self.set_aside(number)
            self._say(f"{chunk} was set aside: {error.reason}; its rows are computed again")
        else:
            self._gone.add(number)
            self._say(f"{chunk} is damaged: {error.reason}")

    def _append(self, chunk: _Chunk, keys: UInt8[np.ndarray, "k 16"]) -> None:
        self._index.add(keys, chunk.first)
        self._chunks.append(chunk)

    def _n_places(self) -> int:
        return self._chunks[-1].first + self._chunks[-1].n_rows if self._chunks else 0

    def _rename_aside(self, number: int) -> None:
        folder = self._path / chunk_name(number)
        attempt = 1
        while (target := self._path / bad_name(number, attempt)).exists():
            attempt += 1
        try:
            folder.rename(target)
        except FileNotFoundError:
            return
        except OSError as error:
            self._say(f"cannot rename {folder} to {target.name}: {error.strerror or error}")


def _open_again(path: Path, identity: Identity) -> FeatureStore:
    return FeatureStore.open(path, identity)
