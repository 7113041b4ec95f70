"""Rows become a chunk, which appears on disk whole."""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from labelwise.errors import ArgumentError, WriteError
from labelwise.features.store.chunk_files import sync_path, write_chunk
from labelwise.features.store.columns import column_dtype
from labelwise.features.store.identity import Identity
from labelwise.features.store.names import chunk_name, make_temporary_name, next_chunk_number
from labelwise.features.store.stored_rows import split_norms, to_storage


def append_chunk(
    store: Path,
    identity: Identity,
    rows: Float32[np.ndarray, "k d"],
    keys: UInt8[np.ndarray, "_ 16"],
) -> int:
    """Write rows as a chunk of a feature store; any number of processes may at once.

    The chunk is built in a folder of its own and gets its name when all of it is on the disk: it
    is there whole or not at all.

    Args:
        store: The store's folder, which ``FeatureStore.open`` has made.
        identity: The store's.
        rows: (k, d) as the representation gives them, k >= 1; not modified.
        keys: (k, 16), of their structures.

    Returns:
        The chunk's number.

    Raises:
        ArgumentError: Not as many keys as rows, rows of another width, or a value that is not
            finite.
        WriteError: The disk is full or cannot be written to; nothing is left of the chunk.
    """
    if len(rows) != len(keys):
        raise ArgumentError(f"{len(rows)} rows and keys of {len(keys)} structures")
    unit, norms = split_norms(rows, identity.blocks)
    records = np.zeros(len(rows), column_dtype(len(identity.blocks)))
    records["key"], records["norms"] = keys, norms
    temporary = store / make_temporary_name()
    try:
        write_chunk(temporary, identity, to_storage(unit, identity.storage_dtype), records)
        return _give_name(temporary, store)
    except OSError as error:
        raise WriteError(
            f"cannot write to the feature store {store}: {error.strerror or error}; the chunks "
            "that were finished are safe"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
