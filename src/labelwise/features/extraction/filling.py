"""Filling a feature store with the rows of a pool: what is there is not computed again.

Files are told by their content. The first time a file is met its frames are listed in the
store; as long as its rows are there, too, it is not read again.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from labelwise.features.extraction.extractor import Extracted, Extractor
from labelwise.features.extraction.offered import Offered, cut_offered, join_offered
from labelwise.features.store import FeatureStore, Listing
from labelwise.runtime.engines import Engine
from labelwise.runtime.files import hash_file
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures.reading import (
    FileSlice,
    RawFrame,
    expand_specs,
    iter_raw_parts,
)
from labelwise.structures.repeats import Fingerprints
from labelwise.structures.screening import TOO_LARGE

_LOT_BYTES = 2**24
_FEWEST_FRAMES, _MOST_FRAMES = 64, 2048


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


class StoreFiller:
    """Brings the rows of frames into a store, here or on many machines.

    Args:
        store: Where rows go.
        engine: Where they are computed.
        setup: Makes an extractor for the store, once in each worker.
        group_by: The info key that the extractor passes on.
        progress: Called with stage, done, total.

    Attributes:
        counts: What was done so far.
    """

    def __init__(
        self,
        store: FeatureStore,
        engine: Engine,
        setup: Callable[[], Extractor],
        *,
        group_by: str | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> None:
        self.counts = ExtractionCounts()
        self._store = store
        self._engine = engine
        self._setup = setup
        self._group_by = group_by
        self._progress = progress
        most = _LOT_BYTES // (4 * store.identity.width)
        self._lot_frames = min(max(most, _FEWEST_FRAMES), _MOST_FRAMES)

    def fill(self, frames: Iterable[RawFrame], *, stage: str) -> Offered:
        """Compute the rows of frames that the store does not have.

        Args:
            frames: Read as they are needed.
            stage: A word for the progress.

        Raises:
            ReadError: A frame cannot be read.
            StructureError: The model cannot take a structure that passed the screen.
            PotentialError: One structure alone does not fit.
            WriteError: The store cannot be written to.
            ClusterError: Workers cannot be had.
        """
        parts = [
            Offered.of(done.frames, grouped=self._group_by is not None)
            for done in self._extract(frames, stage)
        ]
        return join_offered(parts)

    def fill_from_files(self, specs: Sequence[str], *, stage: str) -> Offered:
        """Do the same for files, reading only those that are not known.

        Args:
            specs: As ``iter_frames`` takes them.
            stage: A word for the progress.
        """
        files = [(part, self._name(part)) for part in expand_specs(specs)]
        known = [self._load(part, name) for part, name in files]
        unknown = [part for (part, _), offered in zip(files, known, strict=True) if offered is None]
        counts = [0] * len(unknown)
        found = self.fill(_iter_counted(unknown, counts), stage=stage)
        fresh = iter(_split(found, counts))
        offered: list[Offered] = []
        for (_, name), listed in zip(files, known, strict=True):
            if listed is None:
                offered.append(next(fresh))
                self._save(name, offered[-1])
            else:
                offered.append(self._complete(listed, stage))
        return join_offered(offered)

    def _complete(self, listed: Offered, stage: str) -> Offered:
        """Compute the rows of a file that is known and whose rows are not all there."""
        missing = np.flatnonzero((self._store.find(listed.keys) < 0) & listed.usable())
        if len(missing) == 0:
            return listed
        wanted = {int(listed.frames[place]): int(place) for place in missing}
        whole = FileSlice(Path(listed.files[0]), slice(None))
        chosen = (raw for raw in iter_raw_parts([whole]) if raw.source.frame in wanted)
        done = self.fill(chosen, stage=stage)
        late = {wanted[int(done.frames[place])]: why for place, why in done.set_aside.items()}
        return replace(listed, set_aside=listed.set_aside | late)

    def _extract(self, frames: Iterable[RawFrame], stage: str) -> Iterator[Extracted]:
        n_done = 0
        for done in self._engine.map(
            self._setup,
            Extractor.extract,
            _in_lots(frames, self._lot_frames),
            setup_key=("extractor", str(self._store.path), self._group_by),
            on_retry=self._note_loss,
        ):
            n_done += len(done.frames)
            self.counts.n_read += len(done.frames)
            self.counts.n_computed += done.n_computed
            self.counts.seconds.update(done.seconds)
            self._progress(stage, n_done, None)
            yield done
        self._store.refresh()

    def _note_loss(self, _item: object, _reason: str) -> None:
        self.counts.n_lost += 1

    def _name(self, part: FileSlice) -> str:
        """Return what names the frames of a part of a file in the store."""
        content = hash_file(part.path, "blake2b")
        words = f"{content} {part.frames} {self._group_by}"
        return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()

    def _load(self, part: FileSlice, name: str) -> Offered | None:
        """Return the frames of a file that is known, under its present name."""
        listing = self._store.load_listing(name)
        if listing is None or (self._group_by is not None and not listing.groups):
            return None
        return Offered(
            listing.keys,
            Fingerprints(
                listing.species, listing.n_atoms, listing.projections, listing.coordinates
            ),
            (str(part.path),),
            np.zeros(len(listing), dtype=np.int32),
            listing.frames,
            dict(listing.set_aside),
            tuple(listing.groups),
        )

    def _save(self, name: str, offered: Offered) -> None:
        if any(reason == TOO_LARGE for reason, _ in offered.set_aside.values()):
            return  # another machine may have the memory
        self._store.save_listing(
            name,
            Listing(
                keys=offered.keys,
                species=offered.prints.species,
                n_atoms=offered.prints.n_atoms,
                projections=offered.prints.projections,
                coordinates=offered.prints.coordinates,
                frames=offered.frames,
                set_aside=offered.set_aside,
                groups=offered.groups,
            ),
        )


def _iter_counted(parts: Sequence[FileSlice], counts: list[int]) -> Iterator[RawFrame]:
    """Read parts of files and note how many frames each has."""
    for place, part in enumerate(parts):
        for raw in iter_raw_parts([part]):
            counts[place] += 1
            yield raw


def _in_lots(frames: Iterable[RawFrame], size: int) -> Iterator[list[RawFrame]]:
    stream = iter(frames)
    while lot := list(itertools.islice(stream, size)):
        yield lot


def _split(offered: Offered, counts: Sequence[int]) -> list[Offered]:
    """Cut frames into parts of so many each."""
    parts = []
    start = 0
    for count in counts:
        parts.append(cut_offered(offered, start, start + count))
        start += count
    return parts
