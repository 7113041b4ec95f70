"""Rows in memory: dense, as bits, or sparse, whatever their kernel needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64, UInt8

from labelwise.features.frames import FrameTable
from labelwise.features.representations import (
    Chunk,
    Representation,
    RepresentationOptions,
    SparseRows,
    feature_blocks,
    join_sparse,
)
from labelwise.features.store.base import RowStore
from labelwise.potentials.base import Potential

DEFAULT_MAX_BYTES = 2**29
#: Rows as they are held: of zeros and ones, packed bits.
Held: TypeAlias = Chunk | UInt8[np.ndarray, "_ _"]
_NO_OPTIONS = RepresentationOptions()


@dataclass
class Budget:
    """Bytes that several sets of rows share.

    Attributes:
        max_bytes: What they may keep together.
        n_bytes: What they keep.
    """

    max_bytes: int = 0
    n_bytes: int = 0

    def count_fitting(self, n_rows: int, n_bytes: int) -> int:
        """Return for how many of n rows of so many bytes there is about room."""
        return min(n_rows, n_rows * (self.max_bytes - self.n_bytes) // max(1, n_bytes))

    def take(self, n_bytes: int) -> bool:
        """Return whether there is room for so many more bytes, and if so count them."""
        fits = self.n_bytes + n_bytes <= self.max_bytes
        self.n_bytes += n_bytes if fits else 0
        return fits


class MemoryRows(RowStore):
    """Rows of a representation in memory.

    Bits are packed, eight entries a byte; of sparse rows the entries are held. Rows for which
    the budget has no room are there until they are taken for a kernel, once.

    Args:
        representation: Whose rows.
        potential: The model, if the representation needs one.
        budget: What may be kept for further kernels; None for nothing.

    Attributes:
        representation: Whose rows.
        blocks: The parts of a row that are normalised on their own.
    """

    def __init__(
        self,
        representation: Representation,
        potential: Potential | None = None,
        *,
        budget: Budget | None = None,
    ) -> None:
        self.representation = representation
        self.blocks = feature_blocks(representation, potential)
        self._budget = Budget() if budget is None else budget
        self._width = sum(block.size for block in self.blocks)
        self._is_sparse = representation.column_block is not None
        self._used = np.zeros(self._width if self._is_sparse else 0, dtype=bool)
        self._places: dict[bytes, int] = {}
        self._chunks: list[Held | None] = []
        self._firsts: list[int] = [0]
        self._n_kept = 0

    def __len__(self) -> int:
        """Count the rows that were taken in."""
        return self._firsts[-1]

    @property
    def width(self) -> int:
        """Entries of a row, d."""
        return self._width

    @property
    def n_features(self) -> int:
        """Entries of a row; of sparse rows, the columns in use."""
        return int(self._used.sum()) if self._is_sparse else self._width

    def find(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, " n"]:
        """Return the places of structures' rows, (n,); -1 where there is none."""
        found = [self._places.get(key.tobytes(), -1) for key in keys]
        return np.array(found, dtype=np.int64)

    def append(self, frames: FrameTable, rows: Chunk) -> None:
        """Take in the rows of k frames, finite and not normalised; not copied."""
        self.append_named(frames.keys, rows)

    def append_named(self, keys: UInt8[np.ndarray, "k 16"], rows: Chunk) -> None:
        """Take in the rows of k structures of these keys."""
        for place, key in enumerate(keys, start=len(self)):
            self._places.setdefault(key.tobytes(), place)
        self.extend(rows)

    def extend(self, rows: Chunk) -> Int64[np.ndarray, " k"]:
        """Take in rows without names, and return their places."""
        first = len(self)
        held: Held = rows
        if isinstance(rows, SparseRows):
            self._used[rows.matrix.indices] = True
        elif self.representation.kernel == "tanimoto":
            held = np.packbits(rows.astype(bool), axis=1)
        n_fit = self._budget.count_fitting(len(held), int(held.nbytes))
        if 0 < n_fit < len(held):
            self._add(held[:n_fit].copy())
            held = held[n_fit:]
        self._add(held)
        return np.arange(first, len(self))

    def _add(self, rows: Held) -> None:
        """Take in a chunk; it is kept if there is room and no row before it had to go."""
        if self._n_kept == len(self._chunks) and self._budget.take(int(rows.nbytes)):
            self._n_kept += 1
        self._chunks.append(rows)
        self._firsts.append(len(self) + len(rows))

    def take(self, places: Int64[np.ndarray, " n"]) -> Held:
        """Return rows, (n, d) or as packed bits, fresh; those that are not kept go.

        Args:
            places: (n,), in the order that the rows shall have.
        """
        parts = list(self._iter_parts(places))
        if self._is_sparse:
            return self._take_sparse(parts, len(places))
        is_bits = self.representation.kernel == "tanimoto"
        width = (self._width + 7) // 8 if is_bits else self._width
        rows = np.empty((len(places), width), dtype=np.uint8 if is_bits else np.float32)
        for where, chunk, number in parts:
            rows[where] = self._let_go(number)[chunk]
        self._forget()
        return rows

    def _take_sparse(
        self, parts: list[tuple[np.ndarray, np.ndarray, int]], n_rows: int
    ) -> SparseRows:
        joined = join_sparse([self._let_go(number)[rows] for _, rows, number in parts], self._width)
        self._forget()
        order = np.concatenate([np.zeros(0, np.int64), *(where for where, _, _ in parts)])
        if (order == np.arange(n_rows)).all():
            return joined
        return joined[np.argsort(order)]

    def _iter_parts(
        self, places: Int64[np.ndarray, " n"]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Yield for each chunk where its rows go, which they are, and its number."""
        home = np.searchsorted(self._firsts, places, side="right") - 1
        order = np.argsort(home, kind="stable")
        numbers, starts = np.unique(home[order], return_index=True)
        for number, where in zip(numbers.tolist(), np.split(order, starts[1:]), strict=False):
            yield where, places[where] - self._firsts[number], number

    def _let_go(self, number: int) -> Held:
        """Return a chunk, which goes unless it is kept."""
        chunk = self._chunks[number]
        assert chunk is not None  # noqa: S101  (places were found since the last take)
        if number >= self._n_kept:
            self._chunks[number] = None
        return chunk

    def _forget(self) -> None:
        """Count rows that are not kept as absent."""
        if self._n_kept == len(self._chunks):
            return
        del self._chunks[self._n_kept :], self._firsts[self._n_kept + 1 :]
        self._places = {key: place for key, place in self._places.items() if place < len(self)}


class RowCache:
    """Rows in memory for whoever asks again and again, for representations that do not change.

    Those of structures alone never change; those of a model are kept for models that were
    named to ``keep``, for instance the pretrained one of a campaign. When the memory is full,
    further rows are computed each time.

    Args:
        max_bytes: What all rows together may take.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._budget = Budget(max_bytes)
        self._rows: dict[tuple[str, RepresentationOptions, str], MemoryRows] = {}
        self._kept_models: set[str] = set()

    @property
    def n_bytes(self) -> int:
        """Bytes of the rows that are kept."""
        return self._budget.n_bytes

    def keep(self, potential: Potential) -> None:
        """Let rows of a potential be kept from now on."""
        self._kept_models.add(potential.content_hash)

    def open(
        self,
        representation: Representation,
        options: RepresentationOptions,
        potential: Potential | None = None,
    ) -> MemoryRows:
        """Return the rows of a representation, with those that are known.

        Args:
            representation: Made with ``options``.
            options: What tells it from others of its name.
            potential: Where features come from; None for representations without a model.
        """
        owner = ""
        if not representation.needs_model:
            options = options if representation.takes_options else _NO_OPTIONS
        else:
            owner = "" if potential is None else potential.content_hash
            if owner not in self._kept_models:
                return MemoryRows(representation, potential)
        key = (representation.name, options, owner)
        if key not in self._rows:
            self._rows[key] = MemoryRows(representation, potential, budget=self._budget)
        return self._rows[key]
