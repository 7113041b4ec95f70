"""What a feature store keeps about each row, beside the row."""

from __future__ import annotations

from dataclasses import dataclass

import google_crc32c
import numpy as np
from jaxtyping import Float64, Shaped, UInt8, UInt32

from labelwise.features.store.identity import FORMAT_VERSION
from labelwise.features.store.stored_rows import StoredRows

#: What nobody reads, which version 1 kept of each row: its file and frame, and a fingerprint.
_UNREAD = (
    ("source_file", "<u4"),
    ("source_frame", "<i8"),
    ("projections", "<f8", (8,)),
    ("species", "u1", (16,)),
)


@dataclass(frozen=True)
class RowColumns:
    """Columns as read from a chunk.

    Attributes:
        keys: (k, 16) uint8, by which rows are found: the bytes of a hash of the structure.
        norms: (k, n_blocks) float64, the norms of the blocks of the raw rows.
        row_checksums: (k,) uint32, CRC-32C of the bytes of each row as stored.
    """

    keys: UInt8[np.ndarray, "k 16"]
    norms: Float64[np.ndarray, "k b"]
    row_checksums: UInt32[np.ndarray, " k"]

    def __len__(self) -> int:
        return len(self.keys)


def column_dtype(n_blocks: int, version: int = FORMAT_VERSION) -> np.dtype[np.void]:
    """Return the layout of a row's columns, without gaps, little endian.

    They are one record, so that a store of thousands of chunks is opened with few file reads.

    Args:
        n_blocks: Parts of a row that have norms of their own.
        version: Of the format that the chunk was written in.
    """
    unread = _UNREAD if version == 1 else ()
    return np.dtype(
        [
            ("key", "u1", (16,)),
            ("norms", "<f8", (n_blocks,)),
            *unread,
            ("row_checksum", "<u4"),
        ]
    )


def describe_fields(n_blocks: int) -> list[list[object]]:
    """Return name, type, entries and bytes of each column in order, for Zarr."""
    dtype = column_dtype(n_blocks)
    described: list[list[object]] = []
    for name in dtype.names or ():
        field = dtype[name]
        described.append([name, field.base.str, int(np.prod(field.shape)), field.itemsize])
    return described


def unpack_columns(records: Shaped[np.ndarray, " k"]) -> RowColumns:
    """Return records of ``column_dtype``, (k,), as columns."""
    return RowColumns(
        keys=np.ascontiguousarray(records["key"]),
        norms=np.ascontiguousarray(records["norms"]),
        row_checksums=np.ascontiguousarray(records["row_checksum"]),
    )


def checksum_rows(stored: StoredRows) -> UInt32[np.ndarray, " k"]:
    """Return the CRC-32C of the bytes of each row, (k,)."""
    flat = np.ascontiguousarray(stored).view(np.uint8)
    return np.array([google_crc32c.value(row) for row in flat], dtype=np.uint32)
