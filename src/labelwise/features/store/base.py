"""What keeps rows of features: they are found by the keys of structures and appended to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from labelwise.features.frames import FrameTable


class RowStore(ABC):
    """Rows of one representation and one model, in memory or on disk.

    A row's *place* is its number in the order in which it was met. ``fill`` brings rows into
    ``MemoryRows`` or a ``FeatureStore``, and kernels are made of places.

    Attributes:
        takes_lots: Whether the rows of a lot of frames are appended at once, so that they are
            there as a whole or not at all; else they are as they come.
    """

    takes_lots: bool = False

    @abstractmethod
    def append(self, frames: FrameTable, rows: Any) -> None:
        """Take in the rows of k frames, finite and not normalised."""

    def find(self, keys: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, " n"]:
        """Return the places of structures' rows, (n,); -1 where there is none.

        By default no structure's row is there, whatever was appended.
        """
        return np.full(len(keys), -1, dtype=np.int64)

    def refresh(self) -> None:  # noqa: B027
        """Take in what other processes have appended; by default there are none."""
