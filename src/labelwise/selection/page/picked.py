"""The picks of a selection with all that is known of them, and which structures are points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Int64

from labelwise.selection.page.measures import Measures
from labelwise.selection.page.pool_columns import clean_text
from labelwise.selection.page.record import SelectionRecord
from labelwise.selection.page.replay import ClusterAtPick
from labelwise.selection.page.shelves import Names, Shelved


@dataclass(frozen=True, eq=False)
class Shown:
    """Which structures are points: first those of the pool, then labelled ones.

    Attributes:
        pool: Rows of the pool, ascending.
        train: Rows of the labelled structures, ascending.
    """

    pool: Int64[np.ndarray, " p"]
    train: Int64[np.ndarray, " t"]

    def points_of_pool(self, rows: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """Return the points of some structures of the pool, -1 where they are not shown."""
        return _find(self.pool, rows, 0)

    def points_of_train(self, rows: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """Return the points of some labelled structures, -1 where they are not shown."""
        return _find(self.train, rows, len(self.pool))


@dataclass(frozen=True, eq=False)
class Picked:
    """What is known of the k picks.

    Attributes:
        record: The selection.
        pool, train: What was noted of the structures.
        names: How they are called.
        rows: Rows of the picks in the pool, in order of choice, (k,).
        chosen: The structures, (k,), with predicted force errors where there are any.
        measures: What the batch changed; None if no kernel is known.
        shown: Which structures are points; None without a map.
        clusters: What each pick was taken from, (k,), of rules that have clusters; else empty.
    """

    record: SelectionRecord
    pool: Shelved
    train: Shelved
    names: Names
    rows: Int64[np.ndarray, " k"]
    chosen: tuple[Atoms, ...]
    measures: Measures | None = None
    shown: Shown | None = None
    clusters: tuple[ClusterAtPick | None, ...] = ()

    def name(self, rank: int) -> str:
        """Return how a pick is called."""
        return self.names.of(self.pool, int(self.rows[rank]))

    def centre_name(self, number: int) -> str:
        """Return how a centre is called: a labelled structure, or an earlier pick."""
        if number < len(self.train):
            return self.names.of(self.train, number)
        rank = number - len(self.train)
        return f"{self.name(rank)} (rank {rank})"

    def group(self, rank: int) -> str | None:
        """Return the value of the key by which structures were counted."""
        key = self.record.settings.group_by
        if key is None:
            return None
        return clean_text(str(self.chosen[rank].info.get(key, ""))) or "(none)"


def _find(
    shown: Int64[np.ndarray, " p"], rows: Int64[np.ndarray, " k"], first: int
) -> Int64[np.ndarray, " k"]:
    if len(shown) == 0:
        return np.full(len(rows), -1, dtype=np.int64)
    places = np.minimum(np.searchsorted(shown, rows), len(shown) - 1)
    return np.where(shown[places] == rows, places + first, -1).astype(np.int64)
