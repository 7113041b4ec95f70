"""The picks of a selection with all that is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Int64

from labelwise.selection.measures import ClusterAtPick, Measures, Shown
from labelwise.selection.page.pool_columns import clean_text
from labelwise.selection.page.record import SelectionRecord
from labelwise.selection.page.shelves import Names, Shelved


@dataclass(frozen=True, eq=False)
class Picked:
    """What is known of the k picks.

    Attributes:
        record: The selection.
        pool, train: What was noted of the structures.
        names: How they are called.
        rows: Rows of the picks in the pool, in order of choice, (k,).
        chosen: The structures, (k,), with predicted force errors where there are any.
        measures: What the batch changed; None if it was not measured: then there is no map.
    """

    record: SelectionRecord
    pool: Shelved
    train: Shelved
    names: Names
    rows: Int64[np.ndarray, " k"]
    chosen: tuple[Atoms, ...]
    measures: Measures | None = None

    @property
    def shown(self) -> Shown | None:
        """Which structures are points; None without a map."""
        return None if self.measures is None else self.measures.shown

    @property
    def clusters(self) -> tuple[ClusterAtPick | None, ...]:
        """What each pick was taken from, (k,), of rules that have clusters; else empty."""
        return () if self.measures is None else self.measures.clusters

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
