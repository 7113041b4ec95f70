"""How the files and folders of a feature store are called.

::

    store/
        zarr.json            the root group: whose rows these are
        c000000/             a chunk of rows: a group of two arrays
            zarr.json
            features/        (k, d) unit rows
            columns/         (k, b) bytes: keys, norms, sources and checksums of the rows
        listings/            what each input file holds
        .tmp-HOST-PID-WORD/  a chunk that is being written
        .bad-c000003-1/      a chunk that was set aside
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from pathlib import Path

METADATA_FILE = "zarr.json"
LISTINGS_FOLDER = "listings"

_CHUNK_NAME = re.compile(r"c(\d{6,})")
_BAD_NAME = re.compile(r"\.bad-c(\d{6,})-\d+")
_TEMPORARY_PREFIX = ".tmp-"
_PID_NAMESPACE = Path("/proc/self/ns/pid")
#: What was not changed for so long belongs to nobody, whatever its writer, s.
_ABANDONED_AFTER = 86400.0


def chunk_name(number: int) -> str:
    """Return the name of a chunk's folder."""
    return f"c{number:06d}"


def read_chunk_number(name: str) -> int:
    """Return the number in the name of a chunk's folder; -1 if it is not one."""
    match = _CHUNK_NAME.fullmatch(name)
    return -1 if match is None else int(match[1])


def list_chunk_numbers(store: Path) -> list[int]:
    """Return the numbers of the chunks in a store's folder, ascending."""
    numbers = (read_chunk_number(entry.name) for entry in store.iterdir())
    return sorted(number for number in numbers if number >= 0)


def list_bad_names(store: Path) -> list[str]:
    """Return the names of the chunks that were set aside, in order."""
    return sorted(entry.name for entry in store.iterdir() if _BAD_NAME.fullmatch(entry.name))


def next_chunk_number(store: Path) -> int:
    """Return a number that no chunk has or had, so that nobody takes one for another."""
    former = [int(match[1]) for name in list_bad_names(store) if (match := _BAD_NAME.match(name))]
    return max([*list_chunk_numbers(store), *former], default=-1) + 1


def bad_name(number: int, attempt: int) -> str:
    """Return the name of a chunk that is set aside; ``attempt`` counts from 1."""
    return f".bad-{chunk_name(number)}-{attempt}"


def make_temporary_name() -> str:
    """Return the name of a folder in which this process builds a chunk."""
    return f"{_TEMPORARY_PREFIX}{_describe_machine()}-{os.getpid()}-{secrets.token_hex(4)}"


def is_temporary(name: str) -> bool:
    """Return whether a folder was or is one in which a chunk is built."""
    return name.startswith(_TEMPORARY_PREFIX)


def is_abandoned(folder: Path) -> bool:
    """Return whether the process that built a chunk in a temporary folder is gone.

    That of another machine, of which nothing can be known, is given a day.
    """
    try:
        if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER:
            return True
    except OSError:
        return False
    owner = folder.name.removeprefix(_TEMPORARY_PREFIX).rpartition("-")[0]
    machine, _, pid = owner.rpartition("-")
    if machine != _describe_machine() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def _describe_machine() -> str:
    """Name the machine and its set of process numbers, of which each container has its own."""
    try:
        namespace = _PID_NAMESPACE.stat().st_ino
    except OSError:
        namespace = 0
    return f"{socket.gethostname().replace('/', '_')}.{namespace}"
