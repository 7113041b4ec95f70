"""Feature rows on disk, in the order of a pool: what a kernel needs of them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from labelwise.errors import ArgumentError


@runtime_checkable
class RowSource(Protocol):
    """n rows φ̃ of length d on disk, normalised for a kernel, in the order of a pool."""

    @property
    def width(self) -> int:
        """Length d of a row."""
        ...

    def __len__(self) -> int:
        """Count the rows."""
        ...

    def pieces(self) -> list[slice]:
        """Cut 0..n, in order and without gaps, into slices that are cheap to read at once."""
        ...

    def read(self, rows: slice) -> Float32[np.ndarray, "r d"]:
        """Return some consecutive rows, (r, d), fresh. Called from another thread too."""
        ...

    def gather(self, idx: Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "k d"]:
        """Return rows in any order, (k, d), fresh."""
        ...


def slice_bounds(rows: slice, n: int) -> tuple[int, int]:
    """Return start and stop of a slice of n structures."""
    start, stop, step = rows.indices(n)
    if step != 1:
        raise ArgumentError(f"a slice of rows with step {step}: allowed are steps of 1")
    return start, max(start, stop)
