"""Reading, screening and representing a stream of structures, with the time of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.errors import ScreeningError
from labelwise.potentials.base import Potential
from labelwise.runtime.timing import ProgressCallback, Stopwatch
from labelwise.selection.choosing import Chooser
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import Frame, Screen, Screened, Source
from labelwise.structures.identity import Fingerprint
from labelwise.structures.labels import require_label
from labelwise.structures.screening import NON_FINITE, NON_FINITE_DETAIL

_STAGES = ("read train", "read pool", "screen", "represent train", "represent pool", "select")


@dataclass
class Kept:
    """The structures of one role that passed the screen."""

    role: str
    n_read: int = 0
    sources: list[Source] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    prints: list[Fingerprint | None] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    screened: list[Screened] = field(default_factory=list)

    def remove(self, row: int) -> Screened:
        """Take back a structure whose features are not finite."""
        if self.groups:
            del self.groups[row]
        del self.prints[row]
        return Screened(
            self.role, self.indices.pop(row), self.sources.pop(row), NON_FINITE, NON_FINITE_DETAIL
        )


class Road:
    """Reading, screening and representing, with the time of each."""

    def __init__(
        self,
        settings: AcquisitionSettings,
        potential: Potential | None,
        progress: ProgressCallback,
    ) -> None:
        self.watch = Stopwatch()
        for name in _STAGES:
            self.watch.count(name, 0)  # the order in which they are shown
        self._settings = settings
        self._progress = progress
        self._screen = Screen(
            None if potential is None else potential.graph_builder,
            size_limit=settings.make_size_limit(potential),
        )

    def load(self, role: str, frames: Iterable[Frame], chooser: Chooser | None) -> Kept:
        """Read and screen structures and let the chooser, if there is one, see them."""
        kept = Kept(role)
        structures = self._passing(kept, frames)
        if chooser is None:
            for n_done, _ in enumerate(structures, start=1):
                self._progress(f"read {role}", n_done, None)
            return kept
        broken: list[int] = []
        n_done = 0
        for chunk in self._timed(f"represent {role}", chooser.represent(structures)):
            finite = chooser.keep(role, chunk)
            broken += (n_done + np.flatnonzero(~finite)).tolist()
            n_done += len(chunk)
            self._progress(f"represent {role}", n_done, None)
        for row in reversed(broken):
            self._set_aside(kept, kept.remove(row))
        kept.screened.sort(key=lambda found: found.index)
        return kept

    def _timed(self, name: str, chunks: Iterator[Any]) -> Iterator[Any]:
        """Charge the time of each chunk to a stage, and count its rows."""
        while True:
            with self.watch.stage(name):
                chunk = next(chunks, None)
            if chunk is None:
                return
            self.watch.count(name, len(chunk))
            yield chunk

    def _passing(self, kept: Kept, frames: Iterable[Frame]) -> Iterator[Atoms]:
        check = self._screen.check_train if kept.role == "train" else self._screen.check_pool
        required = self._settings.required_labels if kept.role == "train" else ()
        for frame in self.watch.iterate(f"read {kept.role}", frames):
            kept.n_read += 1
            for key in required:
                require_label(frame.atoms, key, str(frame.source))
            with self.watch.stage("screen", 1):
                found = check(frame)
            if found is not None:
                self._set_aside(kept, found)
                continue
            kept.sources.append(frame.source)
            kept.indices.append(frame.index)
            kept.prints.append(self._screen.last_print)
            if self._settings.group_by is not None and kept.role == "pool":
                kept.groups.append(str(frame.atoms.info.get(self._settings.group_by, "")))
            yield frame.atoms

    def _set_aside(self, kept: Kept, found: Screened) -> None:
        if self._settings.strict:
            raise ScreeningError(found.explain_strict())
        kept.screened.append(found)
