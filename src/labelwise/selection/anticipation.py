"""Whole kernel columns, made several at a time for the picks that are likely next.

One column of features is a product that reads all n rows and computes little: the memory
sets its time, and sixteen columns cost about two. So when a pick needs its column, those
of the picks that will probably follow are made along with it. A guess that proves wrong
costs time, never a result; where guesses keep failing, columns are made singly again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.kernels import Kernel, LinearKernel, device_of

GuessPicks: TypeAlias = Callable[[int], list[int]]

_COLUMNS_AT_ONCE = 16
_MOST_BLOCKS = 8
_BLOCKS_JUDGED = 3
_LEAST_HITS = 3  # of that many blocks together: one block costs about two columns
_SINGLY_AFTER_MISSES = 8


class AnticipatedColumns:
    """Columns k(·, z) of a pool with its own picks z.

    The last few blocks are kept, since a guess often comes true later: at most an eighth
    of the size of the features, or one block.

    Args:
        pool: The pool's kernel, (n,) structures.
    """

    def __init__(self, pool: Kernel) -> None:
        self._pool = pool
        self._device = device_of(pool)
        width = pool.features.shape[1] if isinstance(pool, LinearKernel) else 0
        self._n_blocks = max(1, min(_MOST_BLOCKS, width // (8 * _COLUMNS_AT_ONCE)))
        self._several = isinstance(pool, LinearKernel)
        self._blocks: deque[dict[int, Float[Tensor, " n"]]] = deque(maxlen=self._n_blocks)
        self._hits: deque[int] = deque(maxlen=_BLOCKS_JUDGED)
        self._singly = 0

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
        if len(self._hits) == _BLOCKS_JUDGED and sum(self._hits) < _LEAST_HITS:
            self._hits.clear()
            self._singly = _SINGLY_AFTER_MISSES
        if not self._several or self._singly > 0:
            self._singly = max(self._singly - 1, 0)
            return self._made([pick])[pick]
        known = set().union(*self._blocks)
        likely = [z for z in guess(_COLUMNS_AT_ONCE * self._n_blocks) if z not in known]
        block = self._made([pick, *likely[: _COLUMNS_AT_ONCE - 1]])
        self._blocks.append(block)
        self._hits.append(0)
        return block[pick]

    def _made(self, picks: list[int]) -> dict[int, Float[Tensor, " n"]]:
        """Return the columns of ``picks``, each (n,), from one product."""
        z = torch.tensor(picks, dtype=torch.int64, device=self._device)
        rows = self._pool.block(z, self._pool, slice(None))
        return dict(zip(picks, rows, strict=True))
