"""The nearest labelled structure of every pool structure, by blocks of products.

Where features are float32, a block is first multiplied in float32, at half the cost. A
row whose least value stands clear of the others by more than rounding has its centre;
its distance is then computed in float64 for that one centre. Rows that are not clear
are done again in float64, and where most are not, blocks begin in float64. The result
is that of float64 throughout.

Of centres equally near within rounding the first is taken, and distances below rounding
are zero, as ``nearest_centre`` states.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labelwise.errors import SelectionError
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel, Rows, chunks
from labelwise.kernels.linear import FeatureKernel
from labelwise.selection.rules.base import ROUNDING, Ticker, check_chunk_size

# benchmarks/results/constants.md: a quarter costs 10 %; four times is as fast, in more memory.
CENTRES_PER_BLOCK = 1024
# benchmarks/results/constants.md: 64 cost 16 % more, 1024 12 % less; that depends on the cache.
_ROWS_PER_THREAD = 256
# A row that float32 leaves unclear is multiplied twice: beyond a part of all, float64 is faster.
_MOST_UNCLEAR = 0.3


class NearestInTrain:
    """Least distances from the rows of a pool to blocks of labelled structures.

    Args:
        pool: The pool's kernel, (n,) structures.
        pool_diagonal: Its k(x, x), (n,) float64.
        train: The labelled structures, (m,).
        train_diagonal: Its k(z, z), (m,) float64.
    """

    def __init__(
        self,
        pool: Kernel,
        pool_diagonal: Float[Tensor, " n"],
        train: Kernel,
        train_diagonal: Float[Tensor, " m"],
    ) -> None:
        self._pool = pool
        self._diagonal = pool_diagonal
        self._train = train
        self._train_diagonal = train_diagonal
        self._filters = False
        if isinstance(pool, FeatureKernel) and pool.dtype == torch.float32:
            self._filters = True
            self._rounding = pool.rounding + 4 * torch.finfo(torch.float32).eps

    def least(self, rows: slice, cols: slice) -> tuple[Float[Tensor, " r"], Int[Tensor, " r"]]:
        """Return the least d² of each row over the columns, and its column, both (r,)."""
        if not self._filters:
            return self._decided(rows, cols)
        first, unclear = self._filtered(rows, cols)
        self._filters = int(unclear.sum()) <= _MOST_UNCLEAR * len(unclear)
        if not self._filters:
            return self._decided(rows, cols)
        least = self._to_one_each(rows, first)
        again = torch.nonzero(unclear).squeeze(1)
        if again.numel() > 0:
            least[again], first[again] = self._decided(again + rows.start, cols)
        return least, first

    def _filtered(self, rows: slice, cols: slice) -> tuple[Int[Tensor, " r"], Bool[Tensor, " r"]]:
        """Return the column that float32 finds nearest, and whether others are too close.

        d² = k(x,x) + 2 (k(z,z)/2 - k(x,z)), and k(x,x) does not matter to which is least.
        """
        half_norm = 0.5 * self._train_diagonal[cols]
        half = self._pool.block(rows, self._train, cols).neg_().add_(half_norm.to(torch.float32))
        least, first = half.min(dim=1)
        largest = (2.0 * half_norm.max()).sqrt()
        margin = self._rounding * largest * (self._diagonal[rows].sqrt() + largest)
        bar = (least + 2.0 * margin).to(torch.float32)
        return first + cols.start, (half <= bar[:, None]).sum(dim=1) > 1

    def _to_one_each(self, rows: slice, nearest: Int[Tensor, " r"]) -> Float[Tensor, " r"]:
        """Return d² of each row to the one labelled structure named for it, (r,) float64."""
        assert isinstance(self._pool, FeatureKernel)  # noqa: S101  (only these are filtered)
        theirs = self._pool.checked_partner(self._train).rows(nearest).to(torch.float64)
        products = theirs.mul_(self._pool.rows(rows)).sum(dim=1)
        scale = self._diagonal[rows] + self._train_diagonal[nearest]
        sq_dist = scale - 2.0 * products
        return sq_dist.masked_fill_(sq_dist <= ROUNDING * scale, 0.0)

    def _decided(self, rows: Rows, cols: slice) -> tuple[Float[Tensor, " r"], Int[Tensor, " r"]]:
        """Return the least d² and its column in float64, the first of equals."""
        diagonal, train_diagonal = self._diagonal[rows], self._train_diagonal[cols]
        half = self._pool.block64(rows, self._train, cols).neg_().add_(0.5 * train_diagonal)
        least = half.amin(dim=1)
        floor = ROUNDING * (diagonal + train_diagonal.max())
        first = torch.argmax((half <= (least + 0.5 * floor)[:, None]).to(torch.uint8), dim=1)
        least = least.mul_(2.0).add_(diagonal)
        return least.masked_fill_(least <= floor, 0.0), first + cols.start


def assign_nearest(
    pool: Kernel,
    pool_diagonal: Float[Tensor, " n"],
    train: Kernel,
    train_diagonal: Float[Tensor, " m"],
    chunk_size: int,
    ticker: Ticker,
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Return d² to the nearest labelled structure, (n,) float64, and its number, (n,).

    With nothing labelled these are infinite and 0.
    """
    sq_dist = torch.full_like(pool_diagonal, torch.inf)
    nearest = torch.zeros_like(pool_diagonal, dtype=torch.int64)
    blocks = NearestInTrain(pool, pool_diagonal, train, train_diagonal)
    for chunk in pool.chunks(chunk_size):
        for rows in _cache_sized(chunk, pool_diagonal.device):
            for cols in chunks(len(train), CENTRES_PER_BLOCK):
                least, number = blocks.least(rows, cols)
                floor = ROUNDING * (pool_diagonal[rows] + train_diagonal[cols].max())
                moves = least < sq_dist[rows] - floor
                nearest[rows] = torch.where(moves, number, nearest[rows])
                sq_dist[rows] = torch.where(moves, least, sq_dist[rows])
        ticker.advance()
    return sq_dist, nearest


def _cache_sized(chunk: slice, device: torch.device) -> list[slice]:
    """Cut a chunk so that on a CPU each thread's share of a block stays in its cache."""
    size = chunk.stop - chunk.start
    if device.type == "cpu":
        size = _ROWS_PER_THREAD * torch.get_num_threads()
    return [
        slice(chunk.start + part.start, chunk.start + part.stop)
        for part in chunks(chunk.stop - chunk.start, size)
    ]


def find_nearest(
    kernel: Kernel,
    train: Kernel,
    idx: np.ndarray[tuple[int], np.dtype[np.int64]],
    *,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.float64]]
]:
    """Find the labelled structure that is nearest to each of some pool structures.

    Args:
        kernel: The pool's kernel, (n_pool,) structures.
        train: The labelled structures under the same representation, (n_train,).
        idx: Which pool structures, (k,) integers in 0..n_pool-1.
        chunk_size: Pool structures a block.

    Returns:
        Position of the nearest in ``train``, (k,) int64, the first of equals; and the
        kernel distance d (not squared), (k,) float64, dimensionless. With nothing
        labelled: -1 and infinity.

    Raises:
        SelectionError: An index out of range, or a non-finite kernel value.
        ArgumentError: The kernels do not belong together.
    """
    check_chunk_size(chunk_size)
    wanted = np.asarray(idx, dtype=np.int64)
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(kernel)):
        raise SelectionError(
            f"idx spans {wanted.min()} to {wanted.max()}: allowed are 0 to {len(kernel) - 1}"
        )
    if len(train) == 0:
        return np.full(wanted.shape, -1, dtype=np.int64), np.full(wanted.shape, np.inf)
    rows = kernel.take(torch.from_numpy(wanted.copy()).to(kernel.device))
    sq_dist, nearest = assign_nearest(
        rows, rows.diagonal64(), train, train.diagonal64(), chunk_size, Ticker(None, 0)
    )
    return nearest.cpu().numpy(), sq_dist.sqrt().cpu().numpy()
