"""From frames or files to rows in a store: what is there is not computed again.

Files are told by their content. The first time a file is met its frames are listed in a feature
store; as long as its rows are there, too, it is not read again.
"""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from jaxtyping import Int64

from labelwise.errors import ScreeningError
from labelwise.features.extractor import Check, Extracted, Extractor, RowKind, Tell
from labelwise.features.frames import FrameTable
from labelwise.features.representations import feature_size, make_size_limit
from labelwise.features.representations.joint_rows import JointRows
from labelwise.features.store.base import RowStore
from labelwise.features.store.memory import MemoryRows
from labelwise.features.store.store import FeatureStore
from labelwise.potentials.base import Potential
from labelwise.potentials.size_limit import SizeLimit
from labelwise.runtime.engines import Engine, LocalEngine, Ready
from labelwise.runtime.files import hash_file
from labelwise.runtime.timing import ProgressCallback, Stopwatch, ignore_progress
from labelwise.structures import Frame, Screen, Screened, Source, iter_unscreened
from labelwise.structures.reading import (
    FileSlice,
    RawFrame,
    Spec,
    expand_specs,
    iter_raw_frames,
    iter_raw_parts,
)
from labelwise.structures.screening import TOO_LARGE

_LOT_BYTES = 2**24
_FEWEST_FRAMES, _MOST_FRAMES = 64, 2048

AnyFrame = Frame | RawFrame
#: Loads the model in a worker process.
Load = Callable[[], Potential | None]


@dataclass
class ExtractionCounts:
    """What was done to fill a store.

    Attributes:
        n_read: Frames that were read from files.
        n_computed: Rows that were computed.
        n_lost: Lots of frames whose worker died, and which were sent out again.
        seconds: Summed over workers, of ``prepare``, ``represent`` and ``store``.
    """

    n_read: int = 0
    n_computed: int = 0
    n_lost: int = 0
    seconds: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class RowRecipe:
    """What rows are made of and how; goes to workers.

    Attributes:
        make_kind: Makes the representation, or what else rows are of; picklable.
        batch_atoms: Atoms evaluated at once; None for the device's default.
        group_by: Info key by which structures are counted.
        max_atoms: Structures of more atoms are set aside; None for as many as memory allows.
        memory_bytes: What the process may occupy; None for all that is free.
    """

    make_kind: Callable[[], RowKind]
    batch_atoms: int | None = None
    group_by: str | None = None
    max_atoms: int | None = None
    memory_bytes: int | None = None

    def make_size_limit(self, potential: Potential | None) -> SizeLimit:
        """Return what tells which structures are too large for the model and the memory."""
        return make_size_limit(
            potential, self.make_kind(), max_atoms=self.max_atoms, memory_bytes=self.memory_bytes
        )

    def make_screen(self, potential: Potential | None) -> Screen:
        """Return what sets aside the structures that the model or the memory cannot take."""
        return make_screen(potential, self.make_size_limit(potential))

    def open(
        self,
        potential: Potential | None,
        rows: RowStore | None,
        *,
        check: Check | None = None,
        engine: Engine | None = None,
        tell: Tell | None = None,
    ) -> Extractor:
        """Return what makes rows of frames.

        Args:
            potential: The model, if one is needed.
            rows: Where rows go; None to give them back.
            check: Sets frames aside; None for the content of each frame alone.
            engine: Where batches are evaluated; None for this process.
            tell: Called with the number of frames that are done.
        """
        return Extractor(
            self.make_kind(),
            potential,
            rows,
            self.make_screen(potential).check_content if check is None else check,
            group_by=self.group_by,
            batch_atoms=self.batch_atoms,
            engine=engine,
            tell=tell,
        )


def make_screen(potential: Potential | None, size_limit: SizeLimit | None = None) -> Screen:
    """Return what sets aside the structures that a model cannot take.

    Args:
        potential: The model; None checks the structures alone.
        size_limit: Tells which structures are too large; None for any size.
    """
    return Screen(None if potential is None else potential.graph_builder, size_limit=size_limit)


class Filler:
    """Brings the rows of frames into a store, in this process or in others.

    With rows in memory frames pass one after another, and repeats are set aside at once; an
    engine evaluates the batches. With a feature store, or where workers load the model, an engine
    takes lots of frames, and repeats are found in the table.

    Args:
        recipe: How rows are made.
        rows: Where they go; None to screen frames only.
        potential: The model, if one is needed.
        engine: Where rows are computed; None for here.
        load: Loads the model in the workers of an engine; picklable. None to send the model.
        strict: Raise as soon as a frame is set aside, where frames pass one after another.
        lot_frames: Frames of a lot; None for as many as suit the length of a row.
        watch: Times the stages; None for nobody.
        progress: Called with stage, done, total.

    Attributes:
        counts: What was done so far.
    """

    def __init__(
        self,
        recipe: RowRecipe,
        rows: RowStore | None,
        potential: Potential | None,
        *,
        engine: Engine | None = None,
        load: Load | None = None,
        strict: bool = False,
        lot_frames: int | None = None,
        watch: Stopwatch | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> None:
        self.counts = ExtractionCounts()
        self._recipe, self._rows, self._potential = recipe, rows, potential
        self._watch = Stopwatch() if watch is None else watch
        self._progress, self._strict = progress, strict
        self._load = load
        self._kind = recipe.make_kind()
        # Row sets are taken in one after another, and frames without rows are not worth sending.
        goes_out = self._kind is not None and not isinstance(self._kind, JointRows)
        if load is None:
            on_cpu = potential is None or potential.device.type == "cpu"
            goes_out = goes_out and on_cpu and isinstance(rows, FeatureStore)
        self._engine = engine if goes_out else None
        self._inner = engine if load is None and not goes_out else None
        self._screen = recipe.make_screen(potential)
        width = 1 if self._kind is None else feature_size(self._kind, potential)
        suiting = min(max(_LOT_BYTES // (4 * width), _FEWEST_FRAMES), _MOST_FRAMES)
        self._lot_frames = suiting if lot_frames is None else lot_frames
        self._here: Extractor | None = None

    def fill(self, frames: Iterable[AnyFrame], role: str) -> FrameTable:
        """Compute the rows of frames that the store does not have.

        Args:
            frames: Read as they are needed.
            role: ``train`` or ``pool``, whose repeats are set aside as well, or ``target``.

        Raises:
            ReadError: A frame cannot be read.
            ScreeningError: ``strict``, and a frame is set aside.
            StructureError: The model cannot take a structure that passed the screen.
            PotentialError: One structure alone does not fit.
            WriteError: The store cannot be written to.
            ClusterError: Workers cannot be had.
        """
        stage = f"read {role}" if self._kind is None else f"represent {role}"
        with self._watch.stage(stage):
            read = self._watch.iterate(f"read {role}", frames)
            return FrameTable.join([done.frames for done in self._extract(read, role, stage)])

    def fill_from_files(self, specs: Sequence[Spec], role: str) -> FrameTable:
        """Do the same for files; those that a feature store knows are not read.

        Args:
            specs: As ``iter_frames`` takes them.
            role: ``train`` or ``pool``.
        """
        store = self._rows
        if not isinstance(store, FeatureStore):
            read = iter_unscreened if self._engine is None else iter_raw_frames
            return self.fill(read(specs), role)
        files = [(part, self._name(part)) for part in expand_specs(specs)]
        known = [self._load_listing(store, part, name) for part, name in files]
        unknown = [part for (part, _), table in zip(files, known, strict=True) if table is None]
        counts = [0] * len(unknown)
        found = self.fill(_iter_counted(unknown, counts), role)
        fresh = iter(_split(found, counts))
        tables: list[FrameTable] = []
        for (_, name), listed in zip(files, known, strict=True):
            if listed is None:
                table = next(fresh)
                tables.append(table)
                # Of what is too large here, another machine may have the memory.
                if all(reason != TOO_LARGE for reason, _ in table.set_aside.values()):
                    store.save_listing(name, table)
            else:
                tables.append(self._complete(store, listed, role))
        return FrameTable.join(tables).numbered()

    @property
    def _passes_one_by_one(self) -> bool:
        return self._engine is None and (self._rows is None or not self._rows.takes_lots)

    def _extract(self, frames: Iterable[AnyFrame], role: str, stage: str) -> Iterator[Extracted]:
        engine = LocalEngine() if self._engine is None else self._engine
        lots: Iterable[Iterable[AnyFrame]] = [frames]
        if not self._passes_one_by_one:
            lots = _in_lots(frames, self._lot_frames)
        setup: Callable[[], Extractor]
        setup_key: Hashable = None
        if self._engine is None:
            setup = partial(self._open_here, role, stage)
        else:
            rows = self._rows if isinstance(self._rows, FeatureStore) else None
            load = Ready(self._potential) if self._load is None else self._load
            setup = partial(_open_there, self._recipe, rows, load)
            sent = self._potential if self._load is None else None
            setup_key = sent, pickle.dumps((self._recipe, rows, self._load))
        n_done = 0
        for done in engine.map(
            setup, Extractor.extract, lots, setup_key=setup_key, on_retry=self._note_loss
        ):
            if self._rows is not None:
                for some, rows_of_some in done.rows:
                    self._rows.append(some, rows_of_some)
            n_done += len(done.frames)
            self.counts.n_read += len(done.frames)
            self.counts.n_computed += done.n_computed
            self.counts.seconds.update(done.seconds)
            self._watch.charge("screen", done.screen_s / engine.n_workers)
            self._progress(stage, n_done, None)
            yield done
        if self._rows is not None:
            self._rows.refresh()

    def _open_here(self, role: str, stage: str) -> Extractor:
        """Return what makes rows in this process."""
        if not self._passes_one_by_one:
            if self._here is None:
                self._here = self._recipe.open(
                    self._potential,
                    self._rows,
                    check=self._screen.check_content,
                    engine=self._inner,
                )
            return self._here
        checks = {"train": self._screen.check_train, "pool": self._screen.check_pool}
        check: Check = checks.get(role, self._screen.check_content)
        return self._recipe.open(
            self._potential,
            self._rows,
            check=partial(_refuse, check) if self._strict else check,
            engine=self._inner,
            tell=lambda n_done: self._progress(stage, n_done, None),
        )

    def _complete(self, store: FeatureStore, listed: FrameTable, role: str) -> FrameTable:
        """Compute the rows of a file that is known and whose rows are not all there."""
        missing = np.flatnonzero((store.find(listed.keys) < 0) & listed.usable())
        if len(missing) == 0:
            return listed
        wanted = {int(listed.frames[place]): int(place) for place in missing}
        whole = FileSlice(Path(listed.files[0]), slice(None))
        chosen = (raw for raw in iter_raw_parts([whole]) if raw.source.frame in wanted)
        done = self.fill(chosen, role)
        late = {wanted[int(done.frames[place])]: why for place, why in done.set_aside.items()}
        return listed.without(late)

    def _note_loss(self, _item: object, _reason: str) -> None:
        self.counts.n_lost += 1

    def _name(self, part: FileSlice) -> str:
        """Return what names the frames of a part of a file in the store."""
        content = hash_file(part.path, "blake2b")
        words = f"{content} {part.frames} {self._recipe.group_by}"
        return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()

    def _load_listing(self, store: FeatureStore, part: FileSlice, name: str) -> FrameTable | None:
        """Return the frames of a file that is known, under its present name."""
        listing = store.load_listing(name, str(part.path))
        is_grouped = self._recipe.group_by is not None
        return None if listing is None or (is_grouped and not listing.groups) else listing


def find_rows(
    structures: Iterable[Atoms],
    rows: MemoryRows,
    potential: Potential | None = None,
    *,
    batch_atoms: int | None = None,
    tell: Tell | None = None,
) -> Int64[np.ndarray, " n"]:
    """Return the places of structures' rows, computing those that are not there.

    Args:
        structures: n structures that the model can take; read once, not modified.
        rows: Where the rows are.
        potential: The model, if one is needed.
        batch_atoms: Atoms evaluated at once.
        tell: Called with the number of structures that are done.

    Returns:
        (n,); -1 for a structure whose row is not finite.

    Raises:
        StructureError: The model cannot take a structure.
        PotentialError: The model fails on one.
    """
    frames = (Frame(atoms, Source("structure", i), i) for i, atoms in enumerate(structures))
    extractor = Extractor(
        rows.representation, potential, rows, lambda _: None, batch_atoms=batch_atoms, tell=tell
    )
    table = extractor.extract(frames).frames
    places = rows.find(table.keys)
    places[~table.usable()] = -1
    if tell is not None:
        tell(len(table))
    return places


def _open_there(recipe: RowRecipe, rows: RowStore | None, load: Load) -> Extractor:
    """Return what makes rows in a worker process."""
    return recipe.open(load(), rows)


def _refuse(check: Check, frame: Frame) -> Screened | None:
    """Raise for a frame that is set aside."""
    found = check(frame)
    if found is not None:
        raise ScreeningError(found.explain_strict())
    return None


def _iter_counted(parts: Sequence[FileSlice], counts: list[int]) -> Iterator[RawFrame]:
    """Read parts of files and note how many frames each has."""
    for place, part in enumerate(parts):
        for raw in iter_raw_parts([part]):
            counts[place] += 1
            yield raw


def _in_lots(frames: Iterable[AnyFrame], size: int) -> Iterator[list[AnyFrame]]:
    stream = iter(frames)
    while lot := list(itertools.islice(stream, size)):
        yield lot


def _split(table: FrameTable, counts: Sequence[int]) -> list[FrameTable]:
    """Cut frames into parts of so many each."""
    stops = list(itertools.accumulate(counts))
    return [table.cut(stop - count, stop) for stop, count in zip(stops, counts, strict=True)]
