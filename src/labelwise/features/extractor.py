"""From frames to rows: what one process does with some frames, before and behind the model."""

from __future__ import annotations

import hashlib
import itertools
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms

from labelwise.errors import StructureError
from labelwise.features.frames import KEY_BYTES, FrameRecord, FrameTable
from labelwise.features.representations import ModelRepresentation, Representation, is_finite
from labelwise.features.representations.extract import iter_rows, join_chunks
from labelwise.features.representations.joint_rows import JointRows
from labelwise.features.store.base import RowStore
from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Graph
from labelwise.runtime.engines import Engine, LocalEngine, Ready
from labelwise.structures import Frame, Screened
from labelwise.structures.identity import hash_geometry, hash_structure, make_fingerprint
from labelwise.structures.reading import RawFrame
from labelwise.structures.screening import NON_FINITE, NON_FINITE_DETAIL

#: Frames that a process prepares at once.
_FRAMES_AHEAD = 64

#: What rows are made of: a representation's, the joint posterior's, or none.
RowKind: TypeAlias = Representation | JointRows | None
Check: TypeAlias = Callable[[Frame], Screened | None]
Tell: TypeAlias = Callable[[int], object]


@dataclass(frozen=True)
class Extracted:
    """What became of some frames.

    Attributes:
        frames: Every frame, in order.
        n_computed: Rows that were computed; the others were there.
        rows: Frames and their rows, where there was no store to append them to.
        seconds: Of the stages ``prepare``, ``represent`` and ``store``.
        screen_s: Seconds of ``prepare`` that the screen took.
    """

    frames: FrameTable
    n_computed: int
    rows: list[tuple[FrameTable, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    screen_s: float = 0.0


class Preparer:
    """Does what is done with a frame before the model sees it; picklable, for other processes.

    Args:
        check: Tells why a structure is set aside, see ``Screen``.
        kind: What rows are made of.
        potential: Makes the graphs, if rows are made with a model.
        group_by: An info key whose value is passed on.
    """

    def __init__(
        self,
        check: Check,
        kind: RowKind,
        potential: Potential | None,
        *,
        group_by: str | None = None,
    ) -> None:
        self._check, self._kind, self._group_by = check, kind, group_by
        takes_graphs = isinstance(kind, ModelRepresentation | JointRows)
        self._builder = potential.graph_builder if potential is not None and takes_graphs else None

    def prepare(self, frames: Sequence[Frame | RawFrame]) -> tuple[list[_Prepared], float]:
        """Parse frames, check their content and make what rows are made of.

        Returns:
            The frames, and the seconds that checking them took.

        Raises:
            ReadError: A frame cannot be parsed.
            StructureError: The model cannot take a structure that passed the screen.
        """
        parsed = [raw.parse() if isinstance(raw, RawFrame) else raw for raw in frames]
        start_s = time.perf_counter()
        found = [self._check(frame) for frame in parsed]
        screen_s = time.perf_counter() - start_s
        return [self._prepare(*each) for each in zip(parsed, found, strict=True)], screen_s

    def _prepare(self, frame: Frame, found: Screened | None) -> _Prepared:
        atoms, source, index = frame.atoms, frame.source, frame.index
        group = "" if self._group_by is None else str(atoms.info.get(self._group_by, ""))
        if found is not None:
            return FrameRecord(
                source, index, reason=found.reason, detail=found.detail, group=group
            ), None
        item: Graph | Atoms = atoms
        if self._builder is not None:
            try:
                item = self._builder(atoms)
            except StructureError as error:
                raise StructureError(f"{source}: {error}") from error
        known = make_fingerprint(atoms)
        if self._kind is None:
            return FrameRecord(source, index, None, known, group=group), None
        key, remark = make_key(atoms, item), self._kind.remark(atoms)
        return FrameRecord(source, index, key, known, group=group, remark=remark), item


_Prepared: TypeAlias = tuple[FrameRecord, Graph | Atoms | None]


class Extractor:
    """A representation and a place for its rows, ready for any number of frames.

    Args:
        kind: What is computed; None to prepare frames only.
        potential: The model, if one is needed.
        rows: Where rows go; also tells which are there already. None to give them back.
        check: Tells why a structure is set aside, see ``Screen``.
        group_by: An info key whose value is kept of each frame; None for none.
        batch_atoms: Atoms evaluated at once; None for the device's default.
        engine: Where rows are computed or, for a model on a GPU, frames are parsed, checked and
            given neighbour lists ahead; None for this process.
        tell: Called with the number of frames that are done, as they are.
    """

    def __init__(
        self,
        kind: RowKind,
        potential: Potential | None,
        rows: RowStore | None,
        check: Check,
        *,
        group_by: str | None = None,
        batch_atoms: int | None = None,
        engine: Engine | None = None,
        tell: Tell | None = None,
    ) -> None:
        self._kind, self._potential, self._rows = kind, potential, rows
        self._preparer = Preparer(check, kind, potential, group_by=group_by)
        self._batch_atoms = batch_atoms
        self._grouped = group_by is not None
        self._tell = tell
        on_gpu = potential is not None and potential.device.type != "cpu"
        self._ahead = engine if on_gpu else None
        self._engine = None if on_gpu else engine

    def extract(self, frames: Iterable[Frame | RawFrame]) -> Extracted:
        """Compute the rows of frames that are not there yet, and append them.

        Rows depend on which structures are evaluated together only by rounding. Frames whose
        rows are not finite are set aside.

        Raises:
            ReadError: A frame cannot be parsed.
            StructureError: The model cannot take a structure that passed the screen.
            OutOfMemoryError: One structure alone does not fit.
            WriteError: The store cannot be written to.
        """
        if self._rows is not None:
            self._rows.refresh()
        run = _Run()
        start_s = time.perf_counter()
        for chunk in iter_rows(
            self._fresh(run, frames),
            self._potential,
            self._kind,
            batch_atoms=self._batch_atoms,
            engine=self._engine,
        ):
            self._take(run, chunk)
        represent_s = time.perf_counter() - start_s - run.prepare_s - run.store_s
        self._finish(run)
        seconds = {"prepare": run.prepare_s, "represent": represent_s, "store": run.store_s}
        return Extracted(
            run.table(grouped=self._grouped), run.n_computed, run.held, seconds, run.screen_s
        )

    def _fresh(self, run: _Run, frames: Iterable[Frame | RawFrame]) -> Iterator[Graph | Atoms]:
        """Yield what is to be computed, where structures share rows each key once."""
        shares = not isinstance(self._kind, JointRows)
        stream = self._prepare(frames)
        while True:
            start_s = time.perf_counter()
            prepared = next(stream, None)
            run.prepare_s += time.perf_counter() - start_s
            if prepared is None:
                return
            run.screen_s += prepared[1]
            for record, item in prepared[0]:
                run.records.append(record)
                if record.key is None or item is None:
                    continue
                if shares and (record.key in run.seen or self._has(record.key)):
                    continue
                run.seen.add(record.key)
                run.waiting.append(run.n_flushed + len(run.records) - 1)
                yield item
            if not run.waiting:
                self._flush(run)

    def _has(self, key: bytes) -> bool:
        if self._rows is None:
            return False
        return bool(self._rows.find(np.frombuffer(key, np.uint8)[None])[0] >= 0)

    def _prepare(
        self, frames: Iterable[Frame | RawFrame]
    ) -> Iterator[tuple[list[_Prepared], float]]:
        engine = LocalEngine() if self._ahead is None else self._ahead
        few = _in_lists(frames, 1 if engine.n_workers == 1 else _FRAMES_AHEAD)
        return engine.map(Ready(self._preparer), Preparer.prepare, few)

    def _take(self, run: _Run, chunk: Any) -> None:
        """Keep a batch's rows, or note that they are not finite."""
        records = [run.records[run.waiting.popleft() - run.n_flushed] for _ in range(len(chunk))]
        run.n_computed += len(records)
        finite = is_finite(chunk)
        if not finite.all():
            run.broken |= {record.key for record in itertools.compress(records, ~finite)}
            records, chunk = [*itertools.compress(records, finite)], chunk[finite]
        start_s = time.perf_counter()
        if self._rows is not None and not self._rows.takes_lots:
            self._rows.append(FrameTable.of(records), chunk)
            run.seen.difference_update(record.key for record in records)
        elif records:
            run.held.append((FrameTable.of(records), chunk))
        run.store_s += time.perf_counter() - start_s
        self._flush(run)

    def _flush(self, run: _Run) -> None:
        """Put the frames that wait for no row into the table, some at a time."""
        n_done = (run.waiting[0] if run.waiting else run.n_seen) - run.n_flushed
        if n_done >= _FRAMES_AHEAD:
            run.flush(n_done, grouped=self._grouped)
            if self._tell is not None:
                self._tell(run.n_flushed)

    def _finish(self, run: _Run) -> None:
        """Append rows as one, so that a lot of frames is kept as a whole or not at all."""
        if self._rows is None or not run.held:
            return
        start_s = time.perf_counter()
        frames = FrameTable.join([frames for frames, _ in run.held])
        self._rows.append(frames, join_chunks([rows for _, rows in run.held]))
        run.held.clear()
        run.store_s += time.perf_counter() - start_s


@dataclass
class _Run:
    """Frames on their way.

    Attributes:
        parts: Frames that are done.
        records: Frames behind them.
        n_flushed: Number of the former.
        waiting: Numbers of the frames whose rows are being computed.
        seen: Keys of rows that are being computed, or that the store does not have yet.
        broken: Keys of rows that are not finite.
        held: Rows that are to be appended together.
    """

    parts: list[FrameTable] = field(default_factory=list)
    records: list[FrameRecord] = field(default_factory=list)
    n_flushed: int = 0
    waiting: deque[int] = field(default_factory=deque)
    seen: set[bytes | None] = field(default_factory=set)
    broken: set[bytes | None] = field(default_factory=set)
    held: list[tuple[FrameTable, Any]] = field(default_factory=list)
    n_computed: int = 0
    prepare_s: float = 0.0
    screen_s: float = 0.0
    store_s: float = 0.0

    @property
    def n_seen(self) -> int:
        """Count all frames."""
        return self.n_flushed + len(self.records)

    def flush(self, n_frames: int, *, grouped: bool) -> None:
        """Put the first frames that are in hand into the table."""
        self.parts.append(FrameTable.of(self.records[:n_frames], grouped=grouped))
        del self.records[:n_frames]
        self.n_flushed += n_frames

    def table(self, *, grouped: bool) -> FrameTable:
        """Return all frames, those without finite rows set aside."""
        self.flush(len(self.records), grouped=grouped)
        table = FrameTable.join(self.parts)
        if not self.broken:
            return table
        places = [i for i, key in enumerate(table.keys) if key.tobytes() in self.broken]
        return table.without(dict.fromkeys(places, (NON_FINITE, NON_FINITE_DETAIL)))


def make_key(atoms: Atoms, item: Graph | Atoms) -> bytes:
    """Return what names a structure's row, 16 bytes.

    Structures whose state the model does not tell apart have one row.

    Args:
        atoms: The structure.
        item: What the model takes, with total charge, e, and spin multiplicity; the structure
            itself where there is no model.
    """
    if isinstance(item, Atoms):
        return bytes.fromhex(hash_structure(atoms))
    content = bytes.fromhex(hash_geometry(atoms)) + struct.pack("<2d", item.charge, item.spin)
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


def _in_lists(frames: Iterable[Frame | RawFrame], size: int) -> Iterator[list[Frame | RawFrame]]:
    stream = iter(frames)
    while few := list(itertools.islice(stream, size)):
        yield few
