"""What a feature store keeps about each row, beside the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8, UInt32

from labelwise.errors import ArgumentError
from labelwise.features.store.stored_rows import StoredRows


@dataclass(frozen=True)
class RowColumns:
    """Where rows come from, and what tells their structures apart.

    Attributes:
        keys: (k, 16) uint8, by which rows are found: the bytes of a hash of the structure.
        source_file: The k names of the files that the structures were read from.
        source_frame: (k,) int64, frames within these files.
        projections: (k, 8) float64, Å, by which duplicates are found, see ``DuplicateIndex``.
        species: (k, 16) uint8, hash of elements and periodic directions.

    Raises:
        ArgumentError: Lengths that differ.
    """

    keys: UInt8[np.ndarray, "k 16"]
    source_file: Sequence[str]
    source_frame: Int64[np.ndarray, " _"]
    projections: Float64[np.ndarray, "_ 8"]
    species: UInt8[np.ndarray, "_ 16"]

    def __post_init__(self) -> None:
        lengths = {
            "keys": len(self.keys),
            "source_file": len(self.source_file),
            "source_frame": len(self.source_frame),
            "projections": len(self.projections),
            "species": len(self.species),
        }
        if len(set(lengths.values())) != 1:
            raise ArgumentError(f"the columns have {lengths} rows; all must have as many")

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class StoredColumns(RowColumns):
    """Columns as read from a chunk.

    Attributes:
        norms: (k, n_blocks) float64, the norms of the blocks of the raw rows.
        row_checksums: (k,) uint32, CRC-32C of the bytes of each row as stored.
    """

    norms: Float64[np.ndarray, "k b"]
    row_checksums: UInt32[np.ndarray, " k"]


def column_dtype(n_blocks: int) -> np.dtype[np.void]:
    """Return the layout of a row's columns, without gaps, little endian.

    They are one record, so that a store of thousands of chunks is opened with few file reads.
    """
    return np.dtype(
        [
            ("key", "u1", (16,)),
            ("norms", "<f8", (n_blocks,)),
            ("source_file", "<u4"),
            ("source_frame", "<i8"),
            ("projections", "<f8", (8,)),
            ("species", "u1", (16,)),
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


def unpack_columns(records: Shaped[np.ndarray, " k"], files: Sequence[str]) -> StoredColumns:
    """Return records of ``column_dtype`` as columns.

    Args:
        records: (k,) of that dtype.
        files: The names that ``source_file`` counts in.

    Raises:
        IndexError: ``source_file`` is beyond the names.
    """
    return StoredColumns(
        keys=np.ascontiguousarray(records["key"]),
        source_file=[files[i] for i in records["source_file"].tolist()],
        source_frame=np.ascontiguousarray(records["source_frame"]),
        projections=np.ascontiguousarray(records["projections"]),
        species=np.ascontiguousarray(records["species"]),
        norms=np.ascontiguousarray(records["norms"]),
        row_checksums=np.ascontiguousarray(records["row_checksum"]),
    )


def checksum_rows(stored: StoredRows) -> UInt32[np.ndarray, " k"]:
    """Return the CRC-32C of the bytes of each row, (k,)."""
    flat = np.ascontiguousarray(stored).view(np.uint8)
    return np.array([google_crc32c.value(row) for row in flat], dtype=np.uint32)
