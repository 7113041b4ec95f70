"""What every selection rule shares: its result, its argument checks, its ties.

Ties. Structures whose scores differ by less than rounding (about 1e-12 of the scale)
count as equal, and the lowest pool index among them is taken; so exact duplicates
cannot make the picks depend on the chunk size. No pool index is ever picked twice:
when every score left is zero the rest follows in pool order.

Progress. ``progress(done, total)`` counts units of work (chunks and picks), not picks;
it is called at most ten times a second and once at the end with ``done == total``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import SelectionError
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE as DEFAULT_CHUNK_SIZE
from labelwise.selection.options import DEFAULT_REGULARISATION as DEFAULT_REGULARISATION
from labelwise.selection.options import check_regularisation as check_regularisation

ProgressCallback: TypeAlias = Callable[[int, int], None]

TIE = 1e-12
ROUNDING = 64 * torch.finfo(torch.float64).eps
#: The least λ, and the least pivot of a factor, against the largest k(x, x): about 45 units of
#: rounding. From there on variances are right to 1e-13 of it; below, a pivot may be all rounding.
_LEAST_PIVOT = 1e-14
_PROGRESS_INTERVAL_S = 0.1
_SMALL_PRODUCT = 2**21


@dataclass(frozen=True, eq=False)
class Selection:
    """A batch of k structures in order of choice.

    Attributes:
        pool_idx: (k,) int64, positions in the pool, all different.
        score: (k,) float64, dimensionless, what the rule gave each pick at the time it
            was chosen; its meaning is the rule's.

    Example:
        >>> import torch
        >>> from labelwise import LinearKernel, select_batch
        >>> rows = torch.eye(4)
        >>> select_batch("pv", LinearKernel(rows), LinearKernel(rows[:2]), 2).pool_idx.tolist()
        [2, 3]
    """

    pool_idx: np.ndarray[tuple[int], np.dtype[np.int64]]
    score: np.ndarray[tuple[int], np.dtype[np.float64]]

    def __len__(self) -> int:
        """Count the picks."""
        return len(self.pool_idx)

    @classmethod
    def from_lists(cls, pool_idx: list[int], score: list[float]) -> Selection:
        """Build from the picks and their scores, both (k,)."""
        return cls(np.array(pool_idx, dtype=np.int64), np.array(score, dtype=np.float64))


class Ticker:
    """Passes units of work done on to a callback, at most ten times a second."""

    def __init__(self, callback: ProgressCallback | None, total: int) -> None:
        self._callback = callback
        self._total = total
        self._done = 0
        self._last_s = -math.inf

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` units as done."""
        self._done = min(self._done + steps, self._total)
        if self._callback is None:
            return
        now_s = time.monotonic()
        if self._done == self._total or now_s - self._last_s >= _PROGRESS_INTERVAL_S:
            self._last_s = now_s
            self._callback(self._done, self._total)


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """Run a small product on one thread, and leave a large one as it is.

    Threads gain nothing on a product of a few microseconds, and where other programs
    keep the cores busy each has to wait for the slowest: at d = 256 the picks of ``pv``
    took 20 s on two shared cores instead of 0.7 s. The number of threads of the calling
    thread is restored on leaving.
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1 or multiplications > _SMALL_PRODUCT:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def check_n_select(n_select: int, n_pool: int) -> None:
    """Raise unless 1 <= n_select <= n_pool.

    Raises:
        SelectionError: It is out of range, or the pool is empty.
    """
    if n_pool == 0:
        raise SelectionError("the pool is empty: at least one structure is needed to select from")
    if isinstance(n_select, bool) or not isinstance(n_select, int | np.integer):
        raise SelectionError(f"n_select={n_select!r}: allowed are whole numbers from 1 to {n_pool}")
    if not 1 <= n_select <= n_pool:
        raise SelectionError(
            f"n_select={n_select}: allowed are 1 to {n_pool}, the size of the pool"
        )


def check_resolution(regularisation: float, largest: float) -> None:
    """Raise if λ drowns in the rounding of the kernel values of structures to condition on.

    Args:
        regularisation: λ, in units of the kernel.
        largest: The largest k(x, x) among them.

    Raises:
        SelectionError: It does.
    """
    if regularisation < _LEAST_PIVOT * largest:
        raise SelectionError(_explain_least(regularisation, largest))


def _explain_least(regularisation: float, largest: float) -> str:
    return (
        f"regularisation={regularisation!r} is too small: against kernel values up to "
        f"{largest:.1e}, float64 needs {_LEAST_PIVOT * largest:.1e} or more"
    )


def check_chunk_size(chunk_size: int) -> None:
    """Raise unless the chunk size is at least 1.

    Raises:
        SelectionError: It is not.
    """
    if chunk_size < 1:
        raise SelectionError(f"chunk_size={chunk_size}: allowed are whole numbers from 1")


def first_max(values: Float[Tensor, " n"], margin: float = 0.0) -> int:
    """Return the lowest index whose value is within rounding of the largest.

    Args:
        values: (n,), n >= 1; ``-inf`` marks what may not be taken.
        margin: An absolute width that counts as equal, beside ``TIE`` of the largest.
    """
    largest = float(values.max())
    width = max(TIE * abs(largest), margin) if math.isfinite(largest) else 0.0
    return int(torch.argmax((values >= largest - width).to(torch.uint8)))


def positive_factor(gram: Float[Tensor, "r r"], regularisation: float) -> Float[Tensor, "r r"]:
    """Return L of LLᵀ = gram + λI, (r, r) float64; ``gram`` is written to.

    Raises:
        SelectionError: λ is too small for float64, or the kernel is not positive
            semi-definite.
    """
    gram.diagonal().add_(regularisation)
    largest = float(gram.diagonal().max()) if len(gram) else 0.0
    lower: Tensor
    lower, info = torch.linalg.cholesky_ex(gram)
    if int(info) == 0 and bool((lower.diagonal().square() > _LEAST_PIVOT * largest).all()):
        return lower
    raise SelectionError(
        f"{_explain_least(regularisation, largest)} (and the kernel must be positive semi-definite)"
    )
