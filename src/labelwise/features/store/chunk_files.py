"""A chunk of rows on disk: a Zarr v3 group of two arrays, written once and never changed.

Zarr writes the arrays. They are read without it, for three reasons: Zarr gives the fill value
where a file is missing, without an error; it copies what it has read once more; and a store
of thousands of chunks would take its time to open. An array of one chunk, with a checksum and
without compression, is its bytes and four more.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from jaxtyping import Int64, Shaped, UInt8, UInt32
from zarr.codecs import Crc32cCodec

from labelwise.errors import ReadError
from labelwise.features.store.columns import (
    RowColumns,
    checksum_rows,
    column_dtype,
    describe_fields,
    unpack_columns,
)
from labelwise.features.store.identity import Identity
from labelwise.features.store.names import METADATA_FILE, read_chunk_number
from labelwise.features.store.sealing import (
    check_unchanged,
    load_strictly,
    make_group_metadata,
    open_group_metadata,
)
from labelwise.features.store.stored_rows import ZARR_DTYPES, StoredRows

_DATA_FILE = Path("c/0/0")
#: All files of a chunk, within its folder.
_FILES = (
    Path(METADATA_FILE),
    *(Path(array, METADATA_FILE) for array in ("features", "columns")),
    *(Path(array, _DATA_FILE) for array in ("features", "columns")),
)
_CHECKSUM_BYTES = 4


class DamagedChunkError(ReadError):
    """A chunk of rows that is missing, cut short or altered.

    ``FeatureStore.set_aside`` takes such a chunk out, so that its rows count as absent and are
    computed again.

    Args:
        folder: The chunk's folder.
        reason: What is wrong with it, in words.

    Attributes:
        folder: The chunk's folder.
        number: The chunk's number.
        reason: What is wrong with it, in words.
    """

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"chunk {folder.name} of the feature store {folder.parent} is damaged: {reason}; set "
            "it aside (FeatureStore.set_aside), and its rows are computed again"
        )
        self.folder = folder
        self.number = read_chunk_number(folder.name)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Let the error pass from a worker process to the one that repairs."""
        return DamagedChunkError, (self.folder, self.reason)


@dataclass(frozen=True)
class ChunkRecord:
    """What a chunk says about itself.

    Attributes:
        identity: Whose rows these are.
        n_rows: Rows.
        version: Of the format that it was written in.
        seal: A word that no other chunk has.
    """

    identity: Identity
    n_rows: int
    version: int
    seal: str

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as stored."""
        return self.identity.width * np.dtype(ZARR_DTYPES[self.identity.storage_dtype]).itemsize


def write_chunk(
    folder: Path,
    identity: Identity,
    rows: StoredRows,
    columns: Shaped[np.ndarray, " k"],
) -> None:
    """Write a chunk into a new folder and wait until it is on the disk.

    Args:
        folder: Must not exist.
        identity: Whose rows these are.
        rows: (k, d) unit rows in the storage dtype, k >= 1.
        columns: (k,) of ``column_dtype``; the row checksums are overwritten.

    Raises:
        OSError: The disk is full or cannot be written to; half a chunk may be left.
    """
    columns["row_checksum"] = checksum_rows(rows)
    folder.mkdir()
    content = {
        "identity": identity.to_record(),
        "rows": len(rows),
        "word": secrets.token_hex(8),
    }
    (folder / METADATA_FILE).write_bytes(make_group_metadata(content))
    _write_array(folder / "features", rows, {"storage_dtype": identity.storage_dtype})
    packed = columns.view(np.uint8).reshape(len(columns), -1)
    _write_array(folder / "columns", packed, {"fields": describe_fields(len(identity.blocks))})
    _sync_files(folder)


def read_record(folder: Path) -> ChunkRecord:
    """Read what a chunk says about itself and look whether its rows have the right size.

    Raises:
        DamagedChunkError: The chunk is not as it was written.
        ReadError: The files cannot be read for another reason.
    """
    with _telling_damage(folder):
        content, seal = open_group_metadata((folder / METADATA_FILE).read_bytes())
        identity = Identity.from_record(content["identity"])
        version = int(content["identity"]["format_version"])
        record = ChunkRecord(identity, int(content["rows"]), version, seal)
        _check_features(folder, record)
        return record


def read_columns(folder: Path, record: ChunkRecord) -> RowColumns:
    """Read a chunk's columns and check them.

    Raises:
        DamagedChunkError: The chunk is not as it was written.
        ReadError: The files cannot be read for another reason.
    """
    dtype = column_dtype(len(record.identity.blocks), record.version)
    with _telling_damage(folder):
        raw = _read_array(folder / "columns", (record.n_rows, dtype.itemsize), "uint8")
        return unpack_columns(raw.view(dtype)[:, 0])


def read_rows(folder: Path, record: ChunkRecord) -> StoredRows:
    """Read all rows of a chunk, as stored, and check them.

    Raises:
        DamagedChunkError: The chunk is not as it was written.
        ReadError: The files cannot be read for another reason.
    """
    with _telling_damage(folder):
        shape = (record.n_rows, record.identity.width)
        rows: StoredRows = _read_array(
            folder / "features", shape, ZARR_DTYPES[record.identity.storage_dtype]
        )
        return rows


def check_rest(folder: Path, rows: StoredRows, columns: RowColumns) -> None:
    """Check what reading a chunk does not look at: row checksums, stray words and files.

    Args:
        folder: The chunk.
        rows: What ``read_rows`` gave.
        columns: What ``read_columns`` gave.

    Raises:
        DamagedChunkError: The chunk is not as it was written.
        ReadError: The files cannot be read for another reason.
    """
    with _telling_damage(folder):
        check_unchanged((folder / METADATA_FILE).read_bytes())
        if not np.array_equal(checksum_rows(rows), columns.row_checksums):
            raise ValueError("rows do not agree with their checksums")
        found = {path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()}
        foreign = sorted(str(path) for path in found - {*_FILES})
        if foreign:
            raise ValueError(f"{', '.join(foreign)} does not belong to it")


def read_some_rows(
    folder: Path,
    record: ChunkRecord,
    rows: Int64[np.ndarray, " r"],
    checksums: UInt32[np.ndarray, " r"],
) -> StoredRows:
    """Read a few rows of a chunk, as stored, without the others, and check them.

    Args:
        folder: The chunk.
        record: What it says about itself.
        rows: (r,), rows of the chunk.
        checksums: (r,), the checksum of each.

    Raises:
        DamagedChunkError: A row is not as it was written.
        ReadError: The files cannot be read for another reason.
    """
    size = record.row_bytes
    found = np.empty((len(rows), size), np.uint8)
    with _telling_damage(folder):
        handle = os.open(folder / "features" / _DATA_FILE, os.O_RDONLY)
        try:
            for place, row in enumerate(rows.tolist()):
                content = os.pread(handle, size, row * size)
                if len(content) != size or google_crc32c.value(content) != checksums[place]:
                    raise ValueError(f"row {row} does not agree with its checksum")
                found[place] = np.frombuffer(content, np.uint8)
        finally:
            os.close(handle)
    stored: StoredRows = found.view(ZARR_DTYPES[record.identity.storage_dtype])
    return stored


def sync_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: The system cannot.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_array(folder: Path, values: np.ndarray, attributes: Mapping[str, Any]) -> None:
    zarr.create_array(
        str(folder),
        data=values,
        chunks=values.shape,
        compressors=[Crc32cCodec()],
        filters=None,
        zarr_format=3,
        attributes=dict(attributes),
        config={"write_empty_chunks": True},
    )


def _read_array(folder: Path, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Read the one Zarr chunk of an array.

    Raises:
        ValueError, KeyError, TypeError: Not an array as we write it, or one that is damaged.
        OSError: A file cannot be read.
    """
    _check_metadata(folder, shape, dtype)
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    content = _read_exactly(folder / _DATA_FILE, n_bytes + _CHECKSUM_BYTES)
    body, stored = content[:n_bytes], content[n_bytes:]
    if google_crc32c.value(body) != int.from_bytes(stored.tobytes(), "little"):
        raise ValueError(f"{folder.name}/{_DATA_FILE} does not agree with its checksum")
    return body.view(dtype).reshape(shape)


def _check_features(folder: Path, record: ChunkRecord) -> None:
    """Look at the rows' metadata and the size of their file, without reading them."""
    dtype = ZARR_DTYPES[record.identity.storage_dtype]
    _check_metadata(folder / "features", (record.n_rows, record.identity.width), dtype)
    path = folder / "features" / _DATA_FILE
    _check_size(path, path.stat().st_size, record.n_rows * record.row_bytes + _CHECKSUM_BYTES)


def _check_metadata(folder: Path, shape: tuple[int, int], dtype: str) -> None:
    found = load_strictly((folder / METADATA_FILE).read_bytes())
    codecs = [(codec["name"], codec.get("configuration", {})) for codec in found["codecs"]]
    expected = {
        "zarr_format": (found["zarr_format"], 3),
        "node_type": (found["node_type"], "array"),
        "shape": (found["shape"], list(shape)),
        "data_type": (found["data_type"], dtype),
        "chunk_grid": (found["chunk_grid"]["configuration"]["chunk_shape"], list(shape)),
        "codecs": ([name for name, _ in codecs], ["bytes", "crc32c"]),
        "endian": (codecs[0][1].get("endian", "little"), "little"),
    }
    for name, (came, allowed) in expected.items():
        if came != allowed:
            raise ValueError(f"{name} of {folder.name} is {came} and should be {allowed}")


def _read_exactly(path: Path, n_bytes: int) -> UInt8[np.ndarray, " _"]:
    """Read a file that must have so many bytes into memory of its own."""
    content = np.empty(n_bytes, np.uint8)
    with path.open("rb", buffering=0) as stream:
        _check_size(path, os.fstat(stream.fileno()).st_size, n_bytes)
        n_read = 0
        while n_read < n_bytes and (more := stream.readinto(content.data[n_read:])):
            n_read += more
    _check_size(path, n_read, n_bytes)
    return content


def _check_size(path: Path, came: int, allowed: int) -> None:
    if came != allowed:
        name = path.relative_to(path.parents[3])
        raise ValueError(f"{name} has {came} bytes and should have {allowed}")


@contextmanager
def _telling_damage(folder: Path) -> Iterator[None]:
    """Turn what a damaged chunk leads to into one error, and other failures into another."""
    try:
        yield
    except ReadError:
        raise
    except OSError as error:
        is_damage = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        if not folder.parent.exists() or not (is_damage or error.errno == errno.EIO):
            raise ReadError(f"cannot read the feature store {folder.parent}: {error}") from error
        raise DamagedChunkError(folder, f"{error.strerror} ({error.filename})") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DamagedChunkError(folder, f"{type(error).__name__}: {error}") from error


def _sync_files(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            sync_path(Path(place) / name)
        # Not every file system lets a folder be synchronised.
        with suppress(OSError):
            sync_path(Path(place))
