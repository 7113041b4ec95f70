"""A table of frames as they were read, without the structures: where from, which, and if not, why.

Rows of features are found by a frame's key, repeats by its fingerprint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from labelwise.errors import ArgumentError
from labelwise.structures import Screened, Source
from labelwise.structures.identity import Fingerprint, fingerprint_arrays
from labelwise.structures.repeats import Fingerprints
from labelwise.structures.screening import NON_FINITE

KEY_BYTES = 16
_NO_PRINT = fingerprint_arrays(np.zeros(0), np.zeros((0, 3)), None, (False,) * 3)


@dataclass(frozen=True)
class FrameRecord:
    """One frame, a line of the table.

    Attributes:
        source: File and frame.
        index: Place among all frames read.
        key: 16 bytes, equal for structures that give equal rows; None if set aside.
        fingerprint: By which repeats are found; None if set aside.
        reason: Why it was set aside, see ``Screen``; empty if it was not.
        detail: The same in words.
        group: Value of the info key by which structures are counted.
        remark: In what respect it cannot be represented as it should, or None.
    """

    source: Source
    index: int
    key: bytes | None = None
    fingerprint: Fingerprint | None = None
    reason: str = ""
    detail: str = ""
    group: str = ""
    remark: str | None = None


@dataclass(frozen=True)
class FrameTable:
    """The n frames of a pool, or of the labelled structures, in the order they were read.

    Attributes:
        keys: (n, 16) uint8, by which rows are found; zeros for a frame that was set aside.
        prints: By which repeats are found.
        files: Names of the files.
        file_idx: (n,) int32, each frame's file, as its place in ``files``.
        frames: (n,) int64, each frame's number in its file.
        indices: (n,) int64, each frame's number among all that were read.
        set_aside: Place of a frame that no model can take to the reason and its detail.
        groups: (n,) values of the info key by which structures are counted; empty without one.
        remarks: Place of a frame to what the representation remarked about it.

    Raises:
        ArgumentError: Lengths that differ, or a frame that there is not.
    """

    keys: UInt8[np.ndarray, "n 16"]
    prints: Fingerprints
    files: tuple[str, ...]
    file_idx: Int32[np.ndarray, " n"]
    frames: Int64[np.ndarray, " n"]
    indices: Int64[np.ndarray, " n"]
    set_aside: Mapping[int, tuple[str, str]]
    groups: tuple[str, ...] = ()
    remarks: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self)
        columns = (self.prints.species, self.file_idx, self.frames, self.indices, self.groups)
        lengths = {len(column) for column in columns if len(column) or column is not self.groups}
        if lengths - {n}:
            raise ArgumentError(
                f"columns of {sorted({n, *lengths})} frames; there must be as many in each"
            )
        outside = [place for place in self.set_aside if not 0 <= place < n]
        if outside:
            raise ArgumentError(f"set_aside names frame {outside[0]} of {n} frames")

    def __len__(self) -> int:
        return len(self.keys)

    def source(self, place: int) -> Source:
        """Return where a frame came from."""
        return Source(self.files[int(self.file_idx[place])], int(self.frames[place]))

    def usable(self) -> Bool[np.ndarray, " n"]:
        """Mark the frames that were not set aside."""
        mask = np.ones(len(self), dtype=bool)
        mask[list(self.set_aside)] = False
        return mask

    def passing(self) -> Bool[np.ndarray, " n"]:
        """Mark the frames that passed the screen, whether or not their features are finite."""
        mask = np.ones(len(self), dtype=bool)
        mask[[place for place, why in self.set_aside.items() if why[0] != NON_FINITE]] = False
        return mask

    def without(self, why: Mapping[int, tuple[str, str]]) -> FrameTable:
        """Return the table with further frames set aside.

        Args:
            why: Place of a frame to the reason and its detail.
        """
        keys = self.keys.copy()
        keys[list(why)] = 0
        return replace(self, keys=keys, set_aside={**self.set_aside, **why})

    def list_screened(self, role: str) -> list[Screened]:
        """Return the frames that were set aside, in order.

        Args:
            role: ``pool`` or ``train``.
        """
        return [
            Screened(role, int(self.indices[place]), self.source(place), *why)
            for place, why in sorted(self.set_aside.items())
        ]

    def count_remarks(self) -> Counter[str]:
        """Return what was remarked about frames that passed the screen, to their number."""
        passing = self.passing()
        return Counter(text for place, text in self.remarks.items() if passing[place])

    @classmethod
    def of(cls, records: Sequence[FrameRecord], *, grouped: bool = False) -> FrameTable:
        """Join single frames.

        Args:
            records: The frames.
            grouped: Whether their groups are to be kept.
        """
        files = tuple(dict.fromkeys(item.source.file for item in records))
        place_of = {name: place for place, name in enumerate(files)}
        keys = b"".join(item.key or bytes(KEY_BYTES) for item in records)
        return cls(
            np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES),
            Fingerprints.of(
                [_NO_PRINT if item.fingerprint is None else item.fingerprint for item in records]
            ),
            files,
            np.array([place_of[item.source.file] for item in records], dtype=np.int32),
            np.array([item.source.frame for item in records], dtype=np.int64),
            np.array([item.index for item in records], dtype=np.int64),
            {i: (item.reason, item.detail) for i, item in enumerate(records) if item.reason},
            tuple(item.group for item in records) if grouped else (),
            {i: item.remark for i, item in enumerate(records) if item.remark is not None},
        )

    @classmethod
    def join(cls, parts: Sequence[FrameTable]) -> FrameTable:
        """Put frames behind one another."""
        files = tuple(dict.fromkeys(name for part in parts for name in part.files))
        place_of = {name: place for place, name in enumerate(files)}
        renamed = [
            np.array([place_of[name] for name in part.files], dtype=np.int32)[part.file_idx]
            for part in parts
        ]
        several = [cls.of([]), *parts]
        starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        return cls(
            np.concatenate([part.keys for part in several]),
            Fingerprints.join([part.prints for part in parts]),
            files,
            np.concatenate([np.zeros(0, np.int32), *renamed]),
            np.concatenate([part.frames for part in several]),
            np.concatenate([part.indices for part in several]),
            {
                start + place: why
                for start, part in zip(starts, parts, strict=False)
                for place, why in part.set_aside.items()
            },
            tuple(group for part in parts for group in part.groups),
            {
                start + place: remark
                for start, part in zip(starts, parts, strict=False)
                for place, remark in part.remarks.items()
            },
        )

    def cut(self, start: int, stop: int) -> FrameTable:
        """Return the frames from ``start`` to before ``stop``."""
        rows = slice(start, stop)
        return FrameTable(
            self.keys[rows],
            self.prints[rows],
            self.files,
            self.file_idx[rows],
            self.frames[rows],
            self.indices[rows],
            {place - start: why for place, why in self.set_aside.items() if start <= place < stop},
            self.groups[rows],
            {place - start: text for place, text in self.remarks.items() if start <= place < stop},
        )

    def numbered(self) -> FrameTable:
        """Return the table with its frames numbered from 0."""
        return replace(self, indices=np.arange(len(self)))
