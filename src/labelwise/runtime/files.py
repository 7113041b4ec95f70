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
from contextlib import suppress
from pathlib import Path

from labelwise.errors import ReadError, WriteError

_BEGAN = time.time()
_LONG_AGO_S = 60.0


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


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a binary file in one step: temporary file, flush to disk, rename.

    What writers of the same file that were killed left beside it is removed.

    Args:
        path: Where to write; missing folders are made.
        content: The bytes.

    Raises:
        WriteError: The folder cannot be written to, the disk is full, or the path is a
            directory.
    """
    target = Path(path)
    temporary: str | None = None
    try:
        if target.is_dir():
            raise WriteError(f"cannot write {target}: it is a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            _lock_temporary(handle)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            Path(temporary).chmod(0o666 & ~_current_umask())
            Path(temporary).replace(target)
    except OSError as error:
        _remove_quietly(temporary)
        if isinstance(error, WriteError):
            raise
        raise WriteError(f"cannot write {target}: {error.strerror or error}") from error
    except BaseException:
        _remove_quietly(temporary)
        raise


def hash_file(path: Path) -> str:
    """Return a hash of a file's content, 32 hexadecimal digits.

    Raises:
        ReadError: The file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
            return digest.hexdigest()
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror or error}") from error


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
        target: The file that they were writing, as ``write_bytes`` does: their temporary files are
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


def _remove_quietly(path: str | None) -> None:
    if path is not None:
        with suppress(OSError):
            Path(path).unlink()
