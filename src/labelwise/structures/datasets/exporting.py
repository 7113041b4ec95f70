"""Structures of any format written in another."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from labelwise.errors import ArgumentError, LabelwiseWarning, WriteError, check_name
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures.datasets.base import LabelledStructure, Writer, count
from labelwise.structures.datasets.mace_extxyz import MaceExtxyz
from labelwise.structures.datasets.registry import load_formats
from labelwise.structures.datasets.spool import Spool
from labelwise.structures.datasets.survey import Query, Survey, open_data_set, survey


def list_writable() -> list[str]:
    """Return the names of the formats that can be written."""
    return [name for name, each in load_formats().items() if each.write is not None]


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

    The order is that of the files; but formats that keep the structures of a family together
    have none, which is said where it matters.

    Args:
        paths: Files and folders.
        target: A new file, or for formats of many files a new folder.
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
    write = _find_writer(to)
    if target.exists() and not replace_target:
        raise WriteError(f"{target} exists; choose another place, or replace it with --force")
    if any(path.resolve() == target.resolve() for path in paths):
        raise WriteError(f"{target} is one of the inputs; choose another place")
    data = open_data_set(paths, format_name)
    found = survey(data, query or Query(), seed=0)
    if not len(found):
        raise ArgumentError(f"none of {found.n_seen} structures is to be written")
    structures = data.iter_structures(found.positions.tolist())
    if load_formats()[to].groups_families:
        structures = _iter_grouped(structures, found, target.parent, to)
    return write(target, count(structures, "write", len(found), progress))


def _find_writer(name: str) -> Writer:
    check_name("format", name, list_writable())
    write = load_formats()[name].write
    if write is None:
        raise AssertionError(f"{name} is listed as one that can be written")
    return write


def _iter_grouped(
    structures: Iterator[LabelledStructure], found: Survey, folder: Path, to: str
) -> Iterator[LabelledStructure]:
    """Yield structures with those of a family together, through a file where they are not."""
    has_moved = np.flatnonzero(np.diff(found.families)) + 1
    starts = found.families[np.concatenate([[0], has_moved])]
    is_grouped = len(np.unique(starts[starts >= 0])) == (starts >= 0).sum()
    if len(found.family_names) > 1:
        warnings.warn(
            f"{to} keeps the structures of a family together and lists families by name, not in "
            "the order of the input; the other formats keep that",
            LabelwiseWarning,
            stacklevel=2,
        )
    if is_grouped:
        yield from structures
        return
    order = np.lexsort((found.positions, found.orders, found.families)).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    with Spool(folder) as spool, tempfile.TemporaryDirectory(dir=folder) as place:
        spool.fill(structures)
        sorted_file = Path(place) / "sorted.extxyz"
        spool.write(sorted_file, order)
        yield from MaceExtxyz(sorted_file).iter_structures()
