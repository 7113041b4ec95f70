"""From frames to rows in a feature store: what one worker does with one lot of frames."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context

import numpy as np
from jaxtyping import Float32, UInt8

from labelwise.features.extraction.preparing import KEY_BYTES, Prepared, Preparer
from labelwise.features.representations import ModelRepresentation, is_finite
from labelwise.features.store import FeatureStore, RowColumns
from labelwise.potentials.base import Potential
from labelwise.potentials.batching import map_ahead, map_graphs
from labelwise.potentials.graphs import Graph
from labelwise.potentials.size_limit import SizeLimit
from labelwise.structures.reading import RawFrame
from labelwise.structures.screening import NON_FINITE, NON_FINITE_DETAIL

#: Frames that a process prepares at once.
_FRAMES_AHEAD = 64


@dataclass(frozen=True)
class Extracted:
    """What became of one lot of frames.

    Attributes:
        frames: Every frame, in order, without its graph.
        n_computed: Rows that were computed; the others were in the store.
        seconds: Of the stages ``prepare``, ``represent`` and ``store``.
    """

    frames: tuple[Prepared, ...]
    n_computed: int
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class _Lot:
    """Frames on their way: all of them, the places of those to be computed, the time."""

    items: list[Prepared] = field(default_factory=list)
    fresh: list[int] = field(default_factory=list)
    prepare_s: float = 0.0


class Extractor:
    """A model, a representation and a store, ready for many lots of frames.

    Args:
        store: Where rows go; also tells which are there already.
        potential: The model.
        representation: What is computed with it.
        batch_atoms: Atoms evaluated at once; None for the device's default.
        workers: Processes that parse, check and build neighbour lists ahead; 0 for none.
        group_by: An info key whose value is passed on.
        size_limit: Tells which structures are too large; None for any size.
    """

    def __init__(
        self,
        store: FeatureStore,
        potential: Potential,
        representation: ModelRepresentation,
        *,
        batch_atoms: int | None = None,
        workers: int = 0,
        group_by: str | None = None,
        size_limit: SizeLimit | None = None,
    ) -> None:
        self._store = store
        self._potential = potential
        self._representation = representation
        self._batch_atoms = batch_atoms
        self._preparer = Preparer(potential.graph_builder, size_limit, group_by=group_by)
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._told: set[str] = set()

    def extract(self, frames: Sequence[RawFrame]) -> Extracted:
        """Compute the rows of frames that the store does not have, into one chunk of it.

        Returns when the rows are on disk. Rows depend on which structures are evaluated
        together only by rounding.

        Raises:
            ReadError: A frame cannot be parsed.
            StructureError: The model cannot take a structure that passed the screen.
            OutOfMemoryError: One structure alone does not fit.
            WriteError: The store cannot be written to.
        """
        self._store.refresh()
        lot = _Lot()
        start_s = time.perf_counter()
        rows = self._represent(lot, frames)
        represented_s = time.perf_counter()
        finite = is_finite(rows)
        broken = {lot.items[place].key for place in itertools.compress(lot.fresh, ~finite)}
        lot.items = [
            replace(item, key=None, reason=NON_FINITE, detail=NON_FINITE_DETAIL)
            if item.key in broken
            else item
            for item in lot.items
        ]
        self._write(rows[finite], [lot.items[p] for p in itertools.compress(lot.fresh, finite)])
        return Extracted(
            tuple(lot.items),
            len(lot.fresh),
            {
                "prepare": lot.prepare_s,
                "represent": represented_s - start_s - lot.prepare_s,
                "store": time.perf_counter() - represented_s,
            },
        )

    def close(self) -> None:
        """End the processes that prepare frames."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _represent(self, lot: _Lot, frames: Sequence[RawFrame]) -> Float32[np.ndarray, "k d"]:
        """Compute the rows that are missing, while processes prepare the frames that follow."""
        parts = map_graphs(
            self._potential,
            self._fresh_graphs(lot, frames),
            partial(self._representation.compute, self._potential),
            batch_atoms=self._batch_atoms,
        )
        nothing = np.zeros((0, self._representation.size(self._potential)), dtype=np.float32)
        return np.concatenate([nothing, *(part.float().numpy() for part in parts)])

    def _fresh_graphs(self, lot: _Lot, frames: Sequence[RawFrame]) -> Iterator[Graph]:
        """Yield the graphs of the frames whose rows are to be computed, each key once."""
        seen: set[bytes] = set()
        stream = self._prepare(frames)
        while True:
            start_s = time.perf_counter()
            prepared = next(stream, None)
            lot.prepare_s += time.perf_counter() - start_s
            if prepared is None:
                return
            keys = b"".join(item.key or bytes(KEY_BYTES) for item in prepared)
            places = self._store.find(np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES))
            for item, place in zip(prepared, places.tolist(), strict=True):
                lot.items.append(replace(item, graph=None))
                if item.key is None or item.graph is None or place >= 0 or item.key in seen:
                    continue
                seen.add(item.key)
                lot.fresh.append(len(lot.items) - 1)
                yield item.graph

    def _prepare(self, frames: Sequence[RawFrame]) -> Iterator[list[Prepared]]:
        few = (frames[i : i + _FRAMES_AHEAD] for i in range(0, len(frames), _FRAMES_AHEAD))
        if self._workers == 0:
            yield from map(self._preparer.prepare, few)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        yield from map_ahead(
            self._pool, self._preparer.prepare, few, 2 * self._workers, told=self._told
        )

    def _write(self, rows: Float32[np.ndarray, "k d"], items: Sequence[Prepared]) -> None:
        """Write rows as one chunk, so that a lot of frames is done as a whole or not at all."""
        if not items:
            return
        prints = [item.fingerprint for item in items if item.fingerprint is not None]
        columns = RowColumns(
            keys=_as_bytes([item.key or b"" for item in items]),
            source_file=[item.file for item in items],
            source_frame=np.array([item.frame for item in items], dtype=np.int64),
            projections=np.array([known.projections for known in prints], dtype=np.float64),
            species=_as_bytes([known.species for known in prints]),
        )
        with self._store.make_writer(chunk_bytes=max(1, rows.nbytes)) as writer:
            writer.append(rows, columns)


def _as_bytes(names: Sequence[bytes]) -> UInt8[np.ndarray, "k 16"]:
    return np.frombuffer(b"".join(names), np.uint8).reshape(-1, KEY_BYTES)
