"""What is in a data set, learned in one pass without reading arrays."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from labelwise.errors import DataSetError
from labelwise.structures.datasets.base import (
    DataFile,
    Entry,
    Format,
    LabelledStructure,
    divide_wanted,
)
from labelwise.structures.datasets.registry import recognise

_NO_ORDER = -1


@dataclass(frozen=True)
class Query:
    """Which structures are wanted; an entry that does not say is not taken by a condition.

    Attributes:
        subsets: Sources within the data set; None for all.
        splits: Splits of the publishers; None for all.
        elements: Atomic numbers that a structure may hold; None for all.
        charges: Total charges; None for all.
        spins: Multiplicities; None for all.
        max_atoms: Most atoms; None for no limit.
    """

    subsets: frozenset[str] | None = None
    splits: frozenset[str] | None = None
    elements: frozenset[int] | None = None
    charges: frozenset[int] | None = None
    spins: frozenset[int] | None = None
    max_atoms: int | None = None

    def takes(self, entry: Entry) -> bool:
        """Return whether a structure is wanted."""
        conditions = (
            (self.subsets, entry.subset),
            (self.splits, entry.split),
            (self.charges, entry.charge),
            (self.spins, entry.spin),
        )
        if any(allowed is not None and value not in allowed for allowed, value in conditions):
            return False
        if self.elements is not None and not self.elements.issuperset(entry.elements or (0,)):
            return False
        return self.max_atoms is None or (entry.n_atoms or self.max_atoms + 1) <= self.max_atoms

    def describe(self) -> dict[str, Any]:
        """Return the conditions as plain data, for a manifest."""
        sets = {
            name: sorted(value)
            for name in ("subsets", "splits", "elements", "charges", "spins")
            if (value := getattr(self, name)) is not None
        }
        return sets if self.max_atoms is None else {**sets, "max_atoms": self.max_atoms}


@dataclass(frozen=True)
class Survey:
    """The structures that a query takes, as arrays, (n,) each.

    Attributes:
        positions: Places in the data set, ascending.
        families: Place in ``family_names``, -1 for none.
        orders: Place along the path, -1 for none.
        splits: Place in ``split_names``, -1 for none.
        ranks: A number that the seed and the structure's name alone decide: the structures with
            the n smallest are a random sample, the same whatever the order of files.
        family_names: Families in the order in which they came.
        split_names: Splits in the order in which they came.
        n_seen: Structures of the data set, taken or not.
        seed: What the ranks were made with.
    """

    positions: Int64[np.ndarray, " n"]
    families: Int64[np.ndarray, " n"]
    orders: Int64[np.ndarray, " n"]
    splits: Int64[np.ndarray, " n"]
    ranks: UInt64[np.ndarray, " n"]
    family_names: tuple[str, ...]
    split_names: tuple[str, ...]
    n_seen: int
    seed: int

    def __len__(self) -> int:
        """Return n."""
        return len(self.positions)


@dataclass
class DataSet(DataFile):
    """Files and folders, perhaps of different formats, read one after the other.

    Attributes:
        paths: Files and folders.
        formats: Of each.
    """

    paths: tuple[Path, ...]
    formats: tuple[Format, ...]
    _counts: dict[int, int] = field(default_factory=dict)

    def iter_entries(self) -> Iterator[Entry]:
        """Yield the entries of all files; positions go on from file to file."""
        offset = 0
        for number in range(len(self.paths)):
            n_here = 0
            with self._open(number) as reader:
                for entry in reader.iter_entries():
                    n_here += 1
                    yield entry._replace(position=entry.position + offset)
            self._counts[number] = n_here
            offset += n_here

    def iter_structures(self, wanted: Iterable[int] | None = None) -> Iterator[LabelledStructure]:
        """Yield structures of all files."""
        parts = ((number, self._count(number)) for number in range(len(self.paths)))
        for number, n_here, offset, places in divide_wanted(wanted, parts, "the data set"):
            with self._open(number) as reader:
                for found in reader.iter_structures(None if len(places) == n_here else places):
                    yield found.moved_by(offset)

    def _open(self, number: int) -> DataFile:
        return self.formats[number].open(self.paths[number])

    def _count(self, number: int) -> int:
        if number not in self._counts:
            with self._open(number) as reader:
                self._counts[number] = sum(1 for _ in reader.iter_entries())
        return self._counts[number]


def open_data_set(paths: Iterable[Path], format_name: str | None = None) -> DataSet:
    """Find the format of each path.

    Args:
        paths: Files and folders, at least one.
        format_name: Take all for this format; None looks at each.

    Raises:
        ArgumentError: An unknown format.
        DataSetError: A path that does not exist or is of no format.
    """
    listed = tuple(paths)
    if not listed:
        raise DataSetError("no data was given")
    return DataSet(listed, tuple(recognise(path, format_name) for path in listed))


def survey(data: DataFile, query: Query, *, seed: int) -> Survey:
    """Look at every entry once.

    Args:
        data: The data set; nothing of the size of its arrays is read.
        query: Which structures are wanted.
        seed: Decides the ranks, >= 0.

    Raises:
        DataSetError: The data set is damaged.
    """
    families, splits = _Names(), _Names()
    columns = _Columns()
    n_seen = 0
    for entry in data.iter_entries():
        n_seen += 1
        if not query.takes(entry):
            continue
        order = _NO_ORDER if entry.order is None else entry.order
        family, split = families.place(entry.family), splits.place(entry.split)
        columns.append(entry.position, family, order, split, rank_name(entry.name, seed))
    positions, family_places, orders, split_places = columns.places()
    return Survey(
        positions,
        family_places,
        orders,
        split_places,
        columns.ranks(),
        tuple(families.names),
        tuple(splits.names),
        n_seen,
        seed,
    )


def rank_name(name: str, seed: int) -> int:
    """Return a 64-bit number that seed and name alone decide."""
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


class _Names:
    """Names by the order in which they came."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def place(self, name: str | None) -> int:
        return _NO_ORDER if name is None else self.names.setdefault(name, len(self.names))


class _Columns:
    """Five numbers of each structure in 40 bytes, where a list of integers takes 160."""

    def __init__(self) -> None:
        self._places = tuple(array("q") for _ in range(4))
        self._ranks = array("Q")

    def append(self, position: int, family: int, order: int, split: int, rank: int) -> None:
        for column, value in zip(self._places, (position, family, order, split), strict=True):
            column.append(value)
        self._ranks.append(rank)

    def places(self) -> list[Int64[np.ndarray, " n"]]:
        """Return positions, families, orders and splits."""
        return [np.frombuffer(column, dtype=np.int64) for column in self._places]

    def ranks(self) -> UInt64[np.ndarray, " n"]:
        return np.frombuffer(self._ranks, dtype=np.uint64)
