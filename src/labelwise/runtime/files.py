"""Whole files: one is there as it was meant to be, or not at all.

A writer locks its temporary file while it has it; the lock ends with the process, however that
ends. A file is a leftover of a writer that was killed if nobody locks it and if it is older than
this process or than a minute, so that a writer between making its file and locking it is never
taken for a dead one; the next writer of the same file removes it. Where the file system has no
locks, nothing is removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from labelwise.errors import LabelwiseError, ReadError, WriteError

HashName = Literal["sha256", "blake2b"]

_BEGAN = time.time()
_LONG_AGO_S = 60.0
_CHUNK = 1 << 20


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in one step: it is there whole or not at all.

    Args:
        path: Where to write; missing folders are made.
        text: The content, written as UTF-8.

    Raises:
        WriteError: The folder cannot be written to, the disk is full, or the path is a
            directory.
    """
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_bytes(path: str | os.PathLike[str], content: bytes, *, durable: bool = False) -> None:
    """Write a binary file in one step, see ``whole_file``.

    Args:
        path: Where to write; missing folders are made.
        content: The bytes.
        durable: Wait until the name, too, is on the disk.

    Raises:
        WriteError: The folder cannot be written to, the disk is full, or the path is a
            directory.
    """
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
    if durable:
        sync_folder(Path(path).parent)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file in one step: temporary file, flush to disk, rename.

    What writers of the same file that were killed left beside it is removed.

    Args:
        path: Where to write; missing folders are made, a file there is replaced.

    Yields:
        An empty file beside it, to write to and to close; it takes the file's place if nothing
        is raised, and is removed if anything is.

    Raises:
        WriteError: The folder cannot be written to, the disk is full, or the path is a
            directory.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise WriteError(f"cannot write {target}: it is a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        temporary = Path(name)
        try:
            _lock_temporary(handle)
            yield temporary
            os.fsync(handle)
            temporary.chmod(0o666 & ~_current_umask())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
    except OSError as error:
        if isinstance(error, LabelwiseError):
            raise
        raise WriteError(f"cannot write {target}: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    # Not every file system lets a folder be opened or synchronised; the data are safe.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def hash_file(path: Path, algorithm: HashName = "sha256", *, n_bytes: int | None = None) -> str:
    """Return a hash of a file's content, or of its first bytes.

    Args:
        path: The file.
        algorithm: ``sha256``, 64 hexadecimal digits, as other programs know it; or ``blake2b``
            of 16 bytes, 32 digits, in a third of the time.
        n_bytes: Only so many; None for all.

    Raises:
        ReadError: It cannot be read, or is shorter than that.
    """
    digest = hashlib.sha256() if algorithm == "sha256" else hashlib.blake2b(digest_size=16)
    left = float("inf") if n_bytes is None else n_bytes
    try:
        with path.open("rb") as stream:
            while left and (chunk := stream.read(int(min(_CHUNK, left)))):
                digest.update(chunk)
                left -= len(chunk)
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror or error}") from error
    if n_bytes is not None and left:
        raise ReadError(f"{path} is shorter than it was")
    return digest.hexdigest()


def _lock_temporary(handle: int) -> None:
    """Lock a temporary file until it is closed, where that can be done.

    Args:
        handle: The open file.
    """
    with suppress(OSError, ImportError):  # not every file system or machine has such locks
        _lock(handle)


def _remove_leftovers(target: Path) -> None:
    """Remove what killed writers of a file left beside it; what cannot be looked at stays.

    Args:
        target: The file that they were writing, as ``whole_file`` does: their temporary files are
            called ``.NAME.`` and eight letters of ``tempfile``.
    """
    is_ours = re.compile(re.escape(f".{target.name}.") + "[a-z0-9_]{8}").fullmatch
    with suppress(OSError, ImportError), os.scandir(target.parent) as entries:
        for entry in entries:
            if is_ours(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_unless_used(Path(entry.path))


def _remove_unless_used(path: Path) -> None:
    with suppress(OSError), path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_mtime < max(_BEGAN, time.time() - _LONG_AGO_S):
            _lock(stream.fileno())  # raises if a living process has it
            path.unlink()


def _lock(handle: int) -> None:
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
