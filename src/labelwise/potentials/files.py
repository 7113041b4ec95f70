"""What is in a model's file, without running what is in it."""

from __future__ import annotations

import pickletools
import zipfile
from functools import lru_cache
from pathlib import Path

_MOST_BYTES = 50_000_000


def read_words(path: Path) -> frozenset[str]:
    """List the strings in the pickle of a torch archive: keys, and names of classes.

    Families recognise their files by them.

    Args:
        path: Any file.

    Returns:
        Keys of dictionaries, and classes as ``module name``; nothing for another kind of file.
    """
    status = path.stat()
    return _read_words(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_words(path: Path, modified: int, size: int) -> frozenset[str]:  # noqa: ARG001
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if not names or archive.getinfo(names[0]).file_size > _MOST_BYTES:
                return frozenset()
            content = archive.read(names[0])
        operations = pickletools.genops(content)
        return frozenset(
            str(argument) for _, argument, _ in operations if isinstance(argument, str)
        )
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return frozenset()
