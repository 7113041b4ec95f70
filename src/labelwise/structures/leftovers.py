"""Temporary files of writers that were killed: who finds one removes it, unless it is in use.

A writer locks its temporary file while it has it; the lock ends with the process, however that
ends. A file is a leftover if nobody locks it and if it is older than this process or than a
minute, so that a writer between making its file and locking it is never taken for a dead one.
Where the file system has no locks, nothing is removed.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

_BEGAN = time.time()
_LONG_AGO_S = 60.0


def lock_temporary(handle: int) -> None:
    """Lock a temporary file until it is closed, where that can be done.

    Args:
        handle: The open file.
    """
    with suppress(OSError, ImportError):  # not every file system or machine has such locks
        _lock(handle)


def remove_leftovers(target: Path) -> None:
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
