"""Where the rows of many structures are, found by structure key."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8, UInt64


class KeyIndex:
    """Places of keys of 16 bytes; sorted arrays of 24 bytes a row, which tens of millions bear."""

    def __init__(self) -> None:
        self._high = np.empty(0, np.uint64)
        self._low = np.empty(0, np.uint64)
        self._places = np.empty(0, np.int64)
        self._pending: list[tuple[UInt64[np.ndarray, "_ 2"], int]] = []

    def add(self, keys: UInt8[np.ndarray, "k 16"], first: int) -> None:
        """Add rows whose places are ``first``, ``first + 1`` and so on.

        Args:
            keys: (k, 16).
            first: A place above all that were added before.
        """
        self._pending.append((_as_words(keys), first))

    def remove(self, first: int, stop: int) -> None:
        """Forget the rows with places from ``first`` to before ``stop``."""
        self._merge()
        keep = (self._places < first) | (self._places >= stop)
        self._high, self._low = self._high[keep], self._low[keep]
        self._places = self._places[keep]

    def find(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, " n"]:
        """Return the lowest place of each key, (n,); -1 where it is not known.

        Args:
            keys: (n, 16).
        """
        self._merge()
        words = _as_words(keys)
        # Searching for sorted words walks through memory in one direction.
        order = np.argsort(words[:, 0])
        high, low = words[order, 0], words[order, 1]
        found = np.full(len(words), -1, np.int64)
        spot = np.searchsorted(self._high, high)
        asked = np.flatnonzero(spot < len(self._high))
        while len(asked):
            here = spot[asked]
            same_half = self._high[here] == high[asked]
            same = same_half & (self._low[here] == low[asked])
            found[order[asked[same]]] = self._places[here[same]]
            asked = asked[same_half & ~same]
            spot[asked] += 1
            asked = asked[spot[asked] < len(self._high)]
        return found

    def _merge(self) -> None:
        """Sort what was added since, by the first half of the key and then by place.

        Earlier places come first in what is sorted, and the sort is stable.
        """
        if not self._pending:
            return
        words = [part for part, _ in self._pending]
        places = [np.arange(first, first + len(part)) for part, first in self._pending]
        self._pending = []
        high = np.concatenate([self._high, *(part[:, 0] for part in words)])
        order = np.argsort(high, kind="stable")
        self._high = high[order]
        self._low = np.concatenate([self._low, *(part[:, 1] for part in words)])[order]
        self._places = np.concatenate([self._places, *places])[order]


def _as_words(keys: UInt8[np.ndarray, "n 16"]) -> UInt64[np.ndarray, "n 2"]:
    words: UInt64[np.ndarray, "n 2"] = np.array(keys, order="C").view(np.uint64)
    return words
