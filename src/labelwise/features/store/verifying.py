"""Is a feature store as it was written? Everything is read, and nothing is changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelwise.errors import ReadError
from labelwise.features.frames import FrameTable
from labelwise.features.store.chunk_files import (
    DamagedChunkError,
    check_rest,
    read_columns,
    read_record,
    read_rows,
)
from labelwise.features.store.identity import Identity
from labelwise.features.store.key_index import KeyIndex
from labelwise.features.store.listings import read_listing
from labelwise.features.store.names import (
    LISTINGS_FOLDER,
    METADATA_FILE,
    chunk_name,
    is_temporary,
    list_bad_names,
    list_chunk_numbers,
    read_chunk_number,
)
from labelwise.features.store.sealing import check_unchanged, open_group_metadata

_LISTING = re.compile(r"([0-9a-f]{32})\.listing")


@dataclass(frozen=True)
class Damage:
    """Something in a feature store that is not as it was written.

    Attributes:
        name: Of the file or folder within the store.
        reason: What is wrong with it, in words.
        number: Of the chunk that can be set aside for it; None for what is no such chunk.
        listing: Hash of the input file whose listing can be removed; empty for others.
    """

    name: str
    reason: str
    number: int | None = None
    listing: str = ""


def verify_store(path: Path) -> list[Damage]:
    """Read everything in a feature store, and return what is not as it was written.

    Rows, columns and metadata are held against their checksums, chunks against the store's
    identity, listings against the rows that there are. What a writer that is at work, or was
    killed, has left and chunks that were set aside are no damage.

    Args:
        path: The store's folder.

    Raises:
        ReadError: There is no store, or the folder cannot be read.
    """
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise ReadError(f"cannot read the feature store {path}: {error}") from error
    numbers = list_chunk_numbers(path)
    if METADATA_FILE not in names and not numbers:
        raise ReadError(f"there is no feature store at {path}; check the path")
    damages, identity = _verify_root(path)
    keys = KeyIndex()
    n_rows = 0
    is_whole = not list_bad_names(path)  # so that no row may be missing
    for number in numbers:
        try:
            found = _verify_chunk(path / chunk_name(number), identity)
        except DamagedChunkError as error:
            damages.append(Damage(chunk_name(number), error.reason, number))
            is_whole = False
        except ReadError as error:
            damages.append(Damage(chunk_name(number), str(error)))
            is_whole = False
        else:
            keys.add(found, n_rows)
            n_rows += len(found)
    damages += _verify_listings(path, keys if is_whole else None)
    return [*damages, *_find_foreign(path, names)]


def _verify_root(path: Path) -> tuple[list[Damage], Identity | None]:
    """Return what is wrong with the root, and whose rows the store holds by it."""
    try:
        metadata = (path / METADATA_FILE).read_bytes()
        check_unchanged(metadata)
        content, _ = open_group_metadata(metadata)
        return [], Identity.from_record(content)
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    return [Damage(METADATA_FILE, reason)], None


def _verify_chunk(folder: Path, identity: Identity | None) -> np.ndarray:
    """Return the keys of a chunk, (k, 16) uint8.

    Raises:
        DamagedChunkError: It is not as it was written.
        ReadError: It cannot be read.
    """
    record = read_record(folder)
    difference = "" if identity is None else identity.explain_difference(record.identity)
    if difference:
        raise DamagedChunkError(folder, f"its rows are of another store: {difference}")
    columns = read_columns(folder, record)
    check_rest(folder, read_rows(folder, record), columns)
    return columns.keys


def _verify_listings(path: Path, keys: KeyIndex | None) -> Iterator[Damage]:
    """Read the listings; with keys, look whether the rows are there that they name."""
    folder = path / LISTINGS_FOLDER
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        match = _LISTING.fullmatch(name)
        place = f"{LISTINGS_FOLDER}/{name}"
        if match is None:
            if not name.startswith("."):  # half of one that a killed process was writing
                yield Damage(place, "it does not belong to a feature store")
            continue
        try:
            listing = read_listing(path, match[1])
        except ReadError as error:
            yield Damage(place, str(error))
        except (ValueError, KeyError, TypeError) as error:
            yield Damage(place, str(error), listing=match[1])
        else:
            n_missing = 0 if keys is None or listing is None else _count_missing(listing, keys)
            if n_missing:
                reason = f"{n_missing} rows that it names are in no chunk: one or more are missing"
                yield Damage(place, reason, listing=match[1])


def _count_missing(listing: FrameTable, keys: KeyIndex) -> int:
    return int((keys.find(listing.keys[listing.usable()]) < 0).sum())


def _find_foreign(path: Path, names: Sequence[str]) -> Iterator[Damage]:
    own = {METADATA_FILE, LISTINGS_FOLDER, *list_bad_names(path)}
    for name in names:
        is_own = name in own or is_temporary(name) or name.startswith(f".{METADATA_FILE}.")
        if not is_own and read_chunk_number(name) < 0:
            yield Damage(name, "it does not belong to a feature store")
