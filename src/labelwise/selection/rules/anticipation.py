"""Whole kernel columns, made several at a time for the picks that are likely next.

One column of features is a product that reads all n rows and computes little: the memory
sets its time, and sixteen columns cost about two. So when a pick needs its column, those
of the picks that will probably follow are made along with it. A guess that proves wrong
costs time, never a result.

Where the rows are on disk, reading sets the time. Then as many columns are made in a pass as
there is memory for, and in float64: what is decided about a structure is decided from its
entry, and its row need not be read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import FeatureKernel

GuessPicks: TypeAlias = Callable[[int], list[int]]

# benchmarks/results/constants.md: 4 cost lcmd on noise 7 % more, 64 29 % more.
_COLUMNS_AT_ONCE = 16
# From disk, where reading sets the time; each takes 8 n bytes.
_COLUMNS_A_PASS = 64
# Of memory; 2 and 32 are as fast (benchmarks/results/constants.md).
_MOST_BLOCKS = 8
# Blocks over which hits are averaged, and what is taken before there are so many.
_BLOCKS_JUDGED = 3
_PICKS_SERVED_AT_FIRST = 8


class AnticipatedColumns:
    """Columns k(·, z) of a pool with its own picks z.

    The last few blocks are kept, since a guess often comes true later: as much as the kernel's
    ``column_bytes`` allow, else an eighth of the size of the features; at least one column.

    Args:
        pool: The pool's kernel, (n,) structures.

    Attributes:
        exact: Whether columns come in float64, multiplied in float64.
    """

    def __init__(self, pool: Kernel) -> None:
        self._pool = pool
        self.exact = not pool.in_memory
        self._at_once, self._n_blocks = _columns_and_blocks(pool, self.exact)
        self._blocks: deque[dict[int, Float[Tensor, " n"]]] = deque(maxlen=self._n_blocks)
        self._hits: deque[int] = deque(maxlen=_BLOCKS_JUDGED)

    def holds(self, pick: int) -> bool:
        """Tell whether the column of ``pick`` is made already."""
        return any(pick in block for block in self._blocks)

    @property
    def picks_served(self) -> float:
        """How many picks one block of columns has served of late."""
        if len(self._hits) < _BLOCKS_JUDGED:
            return float(min(_PICKS_SERVED_AT_FIRST, self._at_once))
        return 1.0 + sum(self._hits) / len(self._hits)

    def column(self, pick: int, guess: GuessPicks) -> Float[Tensor, " n"]:
        """Return k(·, pick), (n,).

        Args:
            pick: The structure whose column is wanted.
            guess: Returns about so many structures that may be picked next, different
                from each other and from ``pick``, the likeliest first.
        """
        for block in self._blocks:
            if pick in block:
                if self._hits:
                    self._hits[-1] += 1
                return block[pick]
        if self._at_once == 1:
            return self._made([pick])[pick]
        known = set().union(*self._blocks)
        likely = [z for z in guess(self._at_once * self._n_blocks) if z not in known]
        if len(self._blocks) == self._n_blocks:
            self._blocks.popleft()
        block = self._made([pick, *likely[: self._at_once - 1]])
        self._blocks.append(block)
        self._hits.append(0)
        return block[pick]

    def _made(self, picks: list[int]) -> dict[int, Float[Tensor, " n"]]:
        """Return the columns of ``picks``, each (n,), from one product."""
        z = torch.tensor(picks, dtype=torch.int64, device=self._pool.device)
        if self.exact:
            rows = self._pool.block64(z, self._pool, slice(None))
        else:
            rows = self._pool.block(z, self._pool, slice(None))
        return dict(zip(picks, rows, strict=True))


def _columns_and_blocks(pool: Kernel, exact: bool) -> tuple[int, int]:
    """Return how many columns to make at once, and how many such blocks to keep."""
    at_once = _COLUMNS_A_PASS if exact else _COLUMNS_AT_ONCE
    if not isinstance(pool, FeatureKernel):
        return 1, 1
    if pool.column_bytes is None:
        blocks = pool.width // (8 * _COLUMNS_AT_ONCE)
    else:
        column_bytes = (8 if exact else pool.dtype.itemsize) * max(len(pool), 1)
        at_once = max(1, min(at_once, pool.column_bytes // column_bytes))
        blocks = pool.column_bytes // (column_bytes * at_once)
    return at_once, max(1, min(_MOST_BLOCKS, blocks))
