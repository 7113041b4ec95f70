"""The frames of a pool as they were read, without the structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from labelwise.features.extraction.preparing import KEY_BYTES, Prepared
from labelwise.structures import Source
from labelwise.structures.identity import fingerprint_arrays
from labelwise.structures.repeats import Fingerprints
from labelwise.structures.screening import NON_FINITE

_NO_PRINT = fingerprint_arrays(np.zeros(0), np.zeros((0, 3)), None, (False,) * 3)


@dataclass(frozen=True)
class Offered:
    """The n frames of a pool, or of the labelled structures, in the order they were read.

    Attributes:
        keys: (n, 16) uint8, by which rows are found; zeros for a frame that was set aside.
        prints: By which repeats are found.
        files: Names of the files.
        file_idx: (n,) int32, each frame's file, as its place in ``files``.
        frames: (n,) int64, each frame's number in its file.
        set_aside: Place of a frame that no model can take to the reason and its detail.
        groups: (n,) values of the info key by which structures are counted; empty without one.
    """

    keys: UInt8[np.ndarray, "n 16"]
    prints: Fingerprints
    files: tuple[str, ...]
    file_idx: Int32[np.ndarray, " n"]
    frames: Int64[np.ndarray, " n"]
    set_aside: dict[int, tuple[str, str]]
    groups: tuple[str, ...] = ()

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

    @classmethod
    def of(cls, items: Sequence[Prepared], *, grouped: bool) -> Offered:
        """Join frames that were prepared."""
        files = tuple(dict.fromkeys(item.file for item in items))
        place_of = {name: place for place, name in enumerate(files)}
        keys = b"".join(item.key or bytes(KEY_BYTES) for item in items)
        return cls(
            np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES),
            Fingerprints.of(
                [_NO_PRINT if item.fingerprint is None else item.fingerprint for item in items]
            ),
            files,
            np.array([place_of[item.file] for item in items], dtype=np.int32),
            np.array([item.frame for item in items], dtype=np.int64),
            {i: (item.reason, item.detail) for i, item in enumerate(items) if item.reason},
            tuple(item.group for item in items) if grouped else (),
        )


def join_offered(parts: Sequence[Offered]) -> Offered:
    """Put frames behind one another."""
    files = tuple(dict.fromkeys(name for part in parts for name in part.files))
    place_of = {name: place for place, name in enumerate(files)}
    set_aside: dict[int, tuple[str, str]] = {}
    file_idx = []
    n_before = 0
    for part in parts:
        set_aside |= {n_before + place: why for place, why in part.set_aside.items()}
        renamed = np.array([place_of[name] for name in part.files], dtype=np.int32)
        file_idx.append(renamed[part.file_idx])
        n_before += len(part)
    return Offered(
        np.concatenate([np.zeros((0, KEY_BYTES), np.uint8), *(part.keys for part in parts)]),
        Fingerprints.join([part.prints for part in parts]),
        files,
        np.concatenate([np.zeros(0, np.int32), *file_idx]),
        np.concatenate([np.zeros(0, np.int64), *(part.frames for part in parts)]),
        set_aside,
        tuple(group for part in parts for group in part.groups),
    )


def cut_offered(offered: Offered, start: int, stop: int) -> Offered:
    """Return the frames from ``start`` to before ``stop``."""
    rows = slice(start, stop)
    return Offered(
        offered.keys[rows],
        offered.prints[rows],
        offered.files,
        offered.file_idx[rows],
        offered.frames[rows],
        {place - start: why for place, why in offered.set_aside.items() if start <= place < stop},
        offered.groups[rows],
    )
