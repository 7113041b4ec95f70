"""Where to begin when nothing is labelled.

With no labelled structure every rule starts from the prior k(x, x). Where norms differ,
the largest is taken, as bmdal_reg does. Under a cosine kernel all are equal but for
rounding, and the largest would be whichever row rounds up: noise that changes with the
precision and says nothing. Structures whose k(x, x) is the largest within rounding are
therefore told apart by how typical they are, the mean of k(x, z) over the pool, largest
first: the structure that tells most about the rest. The mean does not depend on the
order of files.

What is equal in both (exact duplicates, or a pool of two) is taken in pool order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labelwise.kernels.base import Kernel
from labelwise.selection.rules.base import TIE, first_max

TIE_FLOAT32 = 1e-6


def first_pick(pool: Kernel, diagonal: Float[Tensor, " n"], chunk_size: int) -> int:
    """Return the pool index to begin with when nothing is labelled.

    Args:
        pool: The pool's kernel, (n,) structures, n >= 1.
        diagonal: Its k(x, x), (n,) float64.
        chunk_size: Structures a block, for kernels without features.
    """
    tied = _largest(pool, diagonal)
    if int(tied.sum()) == 1:
        return int(torch.argmax(tied.to(torch.uint8)))
    typical = pool.mean_similarity(chunk_size)
    return first_max(typical.masked_fill(~tied, -torch.inf))


def prior_order(pool: Kernel, diagonal: Float[Tensor, " n"], chunk_size: int) -> Int[Tensor, " n"]:
    """Return all pool indices, (n,) int64, best first, when nothing is labelled.

    First those of largest k(x, x), the most typical ahead; then the others by k(x, x).
    What is equal within rounding stays in pool order.
    """
    return order_prior(diagonal, _largest(pool, diagonal), lambda: pool.mean_similarity(chunk_size))


def order_prior(
    diagonal: Float[Tensor, " n"],
    tied: Bool[Tensor, " n"],
    find_typical: Callable[[], Float[Tensor, " n"]],
) -> Int[Tensor, " n"]:
    """Return all pool indices, (n,) int64, the tied ones first and of these the most typical.

    Args:
        diagonal: Prior variances, (n,) float64.
        tied: Which of them are the largest within rounding, (n,).
        find_typical: Returns how typical each structure is, (n,) float64 >= 0; asked where
            several are tied.
    """
    key = diagonal
    if int(tied.sum()) > 1:
        typical = find_typical()
        lift = 1.0 + float(typical.abs().max()) + float(diagonal.max())
        key = torch.where(tied, typical + lift, diagonal)
    quantum = TIE * max(float(key.max()), torch.finfo(torch.float64).tiny / TIE)
    return torch.argsort(torch.round(key / quantum), descending=True, stable=True)


def _largest(pool: Kernel, diagonal: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Mark the structures whose k(x, x) is the largest within rounding, (n,) bool."""
    float32 = pool.dtype == torch.float32
    return diagonal >= (1.0 - (TIE_FLOAT32 if float32 else TIE)) * diagonal.max()
