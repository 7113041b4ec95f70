"""The picks of a selection with all that is known of them, its structures read once more."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Int64

from labelwise.errors import ReadError
from labelwise.pages.document import Column
from labelwise.runtime.timing import ProgressCallback
from labelwise.selection.measures import MOST_LABELLED, ClusterAtPick, Measures, Shown
from labelwise.selection.page.pool_columns import ColumnCollector, clean_text
from labelwise.selection.page.record import SelectionRecord
from labelwise.selection.page.shelves import Names, Shelved, shelve
from labelwise.selection.picks import FORCE_STD_KEY
from labelwise.structures import iter_unscreened, read_sources, read_structures

_SAME_PLACE = 1e-4  # Å; extended XYZ rounds to 1e-8


@dataclass(frozen=True, eq=False)
class Picked:
    """What is known of the k picks.

    Attributes:
        record: The selection.
        pool, train: What was noted of the structures that were not set aside.
        names: How they are called.
        columns: What they tell, labelled ones first.
        rows: Rows of the picks in the pool, in order of choice, (k,).
        chosen: The structures, (k,), with predicted force errors where there are any.
        measures: What the batch changed; None if it was not measured: then there is no map.
    """

    record: SelectionRecord
    pool: Shelved
    train: Shelved
    names: Names
    columns: tuple[Column, ...]
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


def read_again(
    record: SelectionRecord,
    measures: Measures | None,
    *,
    seed: int,
    max_bytes: int,
    progress: ProgressCallback,
) -> Picked:
    """Read all structures of a selection once more, and hold them against its summary.

    Args:
        record: The selection.
        measures: What the batch changed, if it was measured.
        seed: Of the structures that are kept to be looked at.
        max_bytes: Room for structures to be looked at, as ``StructurePacker`` counts.
        progress: Called with stage, done, total.

    Raises:
        ReadError: A file is missing or not what it was.
    """
    collector = ColumnCollector(energy_key=record.energy_key)
    chosen = _with_batch(record, read_sources([pick.source for pick in record.picks]))
    places = [pick.pool_index for pick in record.picks]
    all_labelled = range(record.n_train if record.n_train <= MOST_LABELLED else 0)
    shelved: dict[str, Shelved] = {}
    for role, specs, n_expected, always in (
        ("train", record.train, record.n_train, all_labelled),
        ("pool", record.pool, record.n_pool, frozenset(places)),
    ):
        found = shelved[role] = shelve(
            iter_unscreened(specs) if specs else (),
            {item.index for item in record.screened if item.role == role},
            collector,
            always=always,
            max_bytes=max_bytes,
            seed=seed,
            tell=partial(_tell, progress, f"read {role}"),
        )
        if found.n_read != n_expected:
            raise ReadError(
                f"the {role} holds {found.n_read} structures and held {n_expected} when "
                f"{record.path} was written; put the files back, or run the selection again"
            )
    pool, train = shelved["pool"], shelved["train"]
    rows = np.searchsorted(pool.indices, np.array(places)).astype(np.int64)
    names = Names(pool, train)
    return Picked(record, pool, train, names, collector.columns(), rows, tuple(chosen), measures)


def _tell(progress: ProgressCallback, stage: str, n_done: int) -> None:
    progress(stage, n_done, None)


def _with_batch(record: SelectionRecord, chosen: list[Atoms]) -> list[Atoms]:
    """Return the picks with the force errors that were predicted for them.

    Raises:
        ReadError: The batch is there, and holds other structures.
    """
    out = record.input("out")
    path = None if out is None else record.find_file(str(out))
    if path is None or not path.is_file():
        return chosen
    batch = read_structures([path])
    same = len(batch) == len(chosen) and all(map(_is_same, batch, chosen))
    if not same:
        raise ReadError(
            f"{path} does not hold the structures that {record.path} names; put back the files "
            "of the selection, or run it again"
        )
    for atoms, annotated in zip(chosen, batch, strict=True):
        _carry_over(annotated.info, atoms.info)
        _carry_over(annotated.arrays, atoms.arrays)
    return chosen


def _is_same(one: Atoms, other: Atoms) -> bool:
    return bool(
        np.array_equal(one.numbers, other.numbers)
        and np.allclose(one.positions, other.positions, rtol=0.0, atol=_SAME_PLACE)
    )


def _carry_over(there: dict[str, Any], here: dict[str, Any]) -> None:
    if FORCE_STD_KEY in there:
        here[FORCE_STD_KEY] = there[FORCE_STD_KEY]
