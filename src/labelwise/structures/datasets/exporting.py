"""Structures of any format written in another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labelwise.errors import ArgumentError, WriteError, check_name
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures.datasets.base import Writer, count
from labelwise.structures.datasets.registry import load_formats
from labelwise.structures.datasets.survey import Query, open_data_set, survey


def list_writable() -> dict[str, Writer]:
    """Return what writes each format that can be written."""
    found = {name: each.write for name, each in load_formats().items()}
    return {name: write for name, write in found.items() if write is not None}


def export_data(
    paths: Sequence[Path],
    target: Path,
    *,
    to: str,
    query: Query | None = None,
    format_name: str | None = None,
    replace_target: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> int:
    """Write the structures of files in another format.

    The order is that of the files.

    Args:
        paths: Files and folders.
        target: A new file.
        to: Name of the format.
        query: Which structures; None for all.
        format_name: Take the files for this format; None looks at each.
        replace_target: Replace a file that is there.
        progress: Told how far it is.

    Returns:
        How many were written.

    Raises:
        ArgumentError: A format that is unknown or cannot be written, or nothing to write.
        DataSetError: A file that is damaged, or a structure that the format cannot hold.
        WriteError: The target exists or cannot be written.
    """
    writers = list_writable()
    check_name("format", to, writers)
    if target.exists() and not replace_target:
        raise WriteError(f"{target} exists; choose another place, or replace it with --force")
    if any(path.resolve() == target.resolve() for path in paths):
        raise WriteError(f"{target} is one of the inputs; choose another place")
    data = open_data_set(paths, format_name)
    found = survey(data, query or Query(), seed=0)
    if not len(found):
        raise ArgumentError(f"none of {found.n_seen} structures is to be written")
    structures = data.iter_structures(found.positions.tolist())
    return writers[to](target, count(structures, "write", len(found), progress))
