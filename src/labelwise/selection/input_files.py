"""Files that a selection read: what they were, and whether they still are."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from labelwise.errors import LabelwiseWarning, ReadError
from labelwise.runtime.files import hash_file
from labelwise.structures.reading import expand_specs

#: Number, bytes and times of a file; None for one that is not there.
Mark: TypeAlias = tuple[int, int, int, int] | None

_LARGEST_HASHED = 10**9  # bytes


def describe_files(specs: Sequence[str]) -> list[dict[str, Any]]:
    """Return name, size and content hash of the files that some specs mean.

    Args:
        specs: As ``expand_specs`` takes them.

    Returns:
        Keys ``file``, ``bytes`` and ``blake2b``, of which the last is None for folders and for
        files above 1 GB, which are not read for it.

    Raises:
        ReadError: A file is missing or cannot be read.
    """
    return describe_paths([part.path for part in expand_specs(specs)] if specs else [])


def describe_paths(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return what ``describe_files`` returns, of files that are known by their paths."""
    described = []
    for path in dict.fromkeys(paths):
        size = path.stat().st_size if path.is_file() else None
        is_read = size is not None and size <= _LARGEST_HASHED
        digest = hash_file(path, "blake2b") if is_read else None
        described.append({"file": str(path), "bytes": size, "blake2b": digest})
    return described


def mark_files(described: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Mark]:
    """Return by which files are known to be as they were without reading them, by name.

    Args:
        described: What ``describe_files`` found just now, by role.
    """
    names = [str(file["file"]) for files in described.values() for file in files]
    return {name: _mark(name) for name in names}


def warn_of_changes(
    described: Mapping[str, Sequence[Mapping[str, Any]]], marks: Mapping[str, Mark]
) -> None:
    """Say which files are no longer what ``describe_files`` found; few are read again.

    Args:
        described: Lists of files by role.
        marks: What ``mark_files`` found then.

    Warns:
        LabelwiseWarning: Names the files; what is recorded of them is how they were before.
    """
    changed = [
        str(file["file"])
        for files in described.values()
        for file in files
        if _mark(file["file"]) != marks[file["file"]] and _has_changed(file)
    ]
    if changed:
        warnings.warn(
            f"{', '.join(changed[:5])} changed while the structures were read; the summary "
            "records what was there before",
            LabelwiseWarning,
            stacklevel=2,
        )


def _mark(name: str) -> Mark:
    with suppress(OSError):
        found = Path(name).stat()
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return None


def _has_changed(file: Mapping[str, Any]) -> bool:
    try:
        return describe_files([file["file"]]) != [file]
    except ReadError:  # it is gone
        return True
