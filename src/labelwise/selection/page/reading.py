"""A selection's structures read once more and held against the summary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Int64

from labelwise.errors import ReadError
from labelwise.pages.document import Column
from labelwise.runtime.timing import ProgressCallback
from labelwise.selection.measures import MOST_LABELLED
from labelwise.selection.names import FORCE_STD_KEY
from labelwise.selection.page.pool_columns import ColumnCollector
from labelwise.selection.page.record import SelectionRecord
from labelwise.selection.page.shelves import Shelf, Shelved
from labelwise.structures import iter_unscreened, read_sources, read_structures

_SAME_PLACE = 1e-4  # Å; extended XYZ rounds to 1e-8


@dataclass(frozen=True, eq=False)
class ReadAgain:
    """What was read once more.

    Attributes:
        train, pool: What was noted of the structures that were not set aside.
        columns: What they tell, labelled ones first.
        rows: Rows of the picks in the pool.
        chosen: The picks.
    """

    train: Shelved
    pool: Shelved
    columns: tuple[Column, ...]
    rows: Int64[np.ndarray, " k"]
    chosen: tuple[Atoms, ...]


def read_again(
    record: SelectionRecord, *, seed: int, max_bytes: int, progress: ProgressCallback
) -> ReadAgain:
    """Read all structures once more.

    Args:
        record: The selection.
        seed: Of the structures that are kept to be looked at.
        max_bytes: Room for structures to be looked at, as ``StructurePacker`` counts.
        progress: Called with stage, done, total.

    Raises:
        ReadError: A file is missing or not what it was.
    """
    reader = _Reader(record, seed, max_bytes, progress)
    chosen = read_sources([pick.source for pick in record.picks])
    annotated = _with_batch(record, chosen)
    reader.run_through()
    return ReadAgain(
        reader.close("train"),
        reader.close("pool"),
        reader.collector.columns(),
        reader.rows_of_picks(),
        tuple(annotated),
    )


class _Reader:
    """Goes through the structures of both roles once, the labelled ones first."""

    def __init__(
        self, record: SelectionRecord, seed: int, max_bytes: int, progress: ProgressCallback
    ) -> None:
        self.collector = ColumnCollector(energy_key=record.energy_key)
        self.progress = progress
        self._record = record
        specs = {"train": record.train, "pool": record.pool}
        n_always = record.n_train if record.n_train <= MOST_LABELLED else 0
        always = {"train": set(range(n_always)), "pool": {p.pool_index for p in record.picks}}
        self._shelves = {
            role: Shelf(
                role,
                {item.index for item in record.screened if item.role == role},
                self.collector,
                always=always[role],
                max_bytes=max_bytes,
                seed=seed,
            )
            for role in specs
        }
        self.passing: dict[str, Iterator[Atoms]] = {
            role: self._shelves[role].passing(iter_unscreened(names) if names else ())
            for role, names in specs.items()
        }

    def run_through(self) -> None:
        """Read what has not been read yet."""
        for role, structures in self.passing.items():
            for n_done, _ in enumerate(structures, start=1):
                self.progress(f"read {role}", n_done, None)

    def close(self, role: str) -> Shelved:
        """Return what was noted of a role that has been read.

        Raises:
            ReadError: It is not as many structures as it was.
        """
        n = self._record.n_train if role == "train" else self._record.n_pool
        return self._shelves[role].close(n, str(self._record.path))

    def rows_of_picks(self) -> Int64[np.ndarray, " k"]:
        """Return the rows of the picks, once the pool has been read."""
        return self.close("pool").rows_of(pick.pool_index for pick in self._record.picks)


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
