"""Making a feature store, and telling whose rows the one in a folder holds."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from labelwise.errors import ArgumentError, LabelwiseWarning, ReadError, WriteError
from labelwise.features.store.chunk_files import DamagedChunkError, read_record
from labelwise.features.store.identity import Identity
from labelwise.features.store.names import (
    METADATA_FILE,
    chunk_name,
    is_abandoned,
    is_temporary,
    list_bad_names,
    list_chunk_numbers,
)
from labelwise.features.store.sealing import make_group_metadata, open_group_metadata
from labelwise.runtime.files import write_bytes

#: Called with a sentence about what was found and repaired.
Say = Callable[[str], None]


def warn(message: str) -> None:
    """Give a message as a warning."""
    warnings.warn(message, LabelwiseWarning, stacklevel=3)


def find_identity(store: Path, say: Say, *, mend: bool = True) -> Identity | None:
    """Return whose rows a folder holds; None if there is no folder, or nothing in it.

    If the root's metadata are missing or damaged, a chunk tells, and they are made anew from it.

    Args:
        store: The folder.
        say: Told of such a repair.
        mend: Whether the root is made anew; else it is only said that it is damaged.

    Raises:
        ReadError: A file or a folder of something else is in the way, or neither the root nor
            a chunk is intact.
    """
    if not store.exists() or _is_blank(store):
        return None
    path = store / METADATA_FILE
    try:
        content, _ = open_group_metadata(path.read_bytes())
        return Identity.from_record(content)
    except ReadError:
        raise
    except FileNotFoundError:
        problem = "is missing"
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        problem = f"is not as Labelwise writes it ({type(error).__name__}: {error})"
    identity = _find_in_chunks(store, problem)
    if not mend:
        say(f"{path} {problem}; an intact chunk says whose rows these are")
        return identity
    say(f"{path} {problem}; it is made anew from an intact chunk")
    try:
        write_root(store, identity)
    except WriteError as error:
        say(str(error))
    return identity


def create_root(store: Path, identity: Identity) -> None:
    """Make an empty feature store.

    Raises:
        WriteError: The folder cannot be written to.
        ArgumentError: Another process has made one with another identity meanwhile.
    """
    write_root(store, identity)
    found = find_identity(store, warn)
    if found is not None:
        check_identity(store, found, identity)


def write_root(store: Path, identity: Identity) -> None:
    """Write the root's metadata in one step.

    Raises:
        WriteError: The folder cannot be written to.
    """
    write_bytes(store / METADATA_FILE, make_group_metadata(identity.to_record()))


def check_identity(store: Path, found: Identity, expected: Identity) -> None:
    """Raise ``ArgumentError``, naming what differs, unless two identities are the same."""
    difference = found.explain_difference(expected)
    if difference:
        raise ArgumentError(
            f"the feature store {store} holds other rows: {difference}; choose another folder, or "
            "remove this one"
        )


def remove_leftovers(store: Path) -> None:
    """Remove chunks that were never finished and whose writers are gone."""
    for entry in list(store.iterdir()):
        if is_temporary(entry.name) and is_abandoned(entry):
            shutil.rmtree(entry, ignore_errors=True)


def _is_blank(store: Path) -> bool:
    """Return whether a folder has nothing in it, or only what a killed creation left."""
    if not store.is_dir():
        raise ReadError(f"{store} is a file; a feature store is a folder: choose another path")
    try:
        return all(entry.name.startswith(f".{METADATA_FILE}.") for entry in store.iterdir())
    except OSError as error:
        raise ReadError(f"cannot read {store}: {error.strerror or error}") from error


def _find_in_chunks(store: Path, problem: str) -> Identity:
    """Return the identity that the intact chunks of a folder carry.

    Raises:
        ReadError: There is none, or they do not agree.
    """
    numbers = list_chunk_numbers(store)
    found: dict[str, Identity] = {}
    for number in numbers:
        try:
            identity = read_record(store / chunk_name(number)).identity
        except DamagedChunkError:
            continue
        found[str(identity.to_record())] = identity
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ReadError(
            f"{store / METADATA_FILE} {problem}, and the chunks are of {len(found)} different "
            "stores; keep those of one store in this folder"
        )
    if numbers or list_bad_names(store):
        raise ReadError(
            f"{store / METADATA_FILE} {problem}, and no chunk of the feature store is intact; "
            "remove the folder, and all rows are computed again"
        )
    names = sorted(entry.name for entry in store.iterdir())[:3]
    raise ReadError(
        f"{store} is not a feature store: it holds {', '.join(names)}, and its {METADATA_FILE} "
        f"{problem}; choose another path, or an empty folder"
    )
