"""Posterior variances under any kernel: partial pivoted Cholesky, columns on the fly.

Row x of the factor F holds k(x, T) L⁻ᵀ for the labelled T (LLᵀ = K_TT + λI), then one
entry per pick, so that the variance is k(x,x) - ‖F[x]‖² and a pick z appends the column
(k(·,z) - F F[z]) / sqrt(σ²(z) + λ). Memory is n (m + n_select) float64; K itself is
never held.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.kernels.base import Kernel, chunks
from labelwise.selection.rules.base import (
    ROUNDING,
    Ticker,
    check_resolution,
    first_max,
    positive_factor,
)


class CholeskyVariances:
    """The posterior variances of a pool under any kernel.

    Attributes:
        variance: Given the labelled structures and the picks so far, (n,) float64; -inf for picks.
        lower: L of LLᵀ = K_TT + λI, (m, m) float64.

    Args:
        pool: The pool's kernel, (n,) structures.
        train: The labelled structures, (m,), m >= 0.
        regularisation: λ, dimensionless, > 0.
        n_select: Picks to come.
        chunk_size: Pool structures a block.
        ticker: Told of each block of the first pass.

    Raises:
        SelectionError: λ is too small for float64.
    """

    def __init__(
        self,
        pool: Kernel,
        train: Kernel,
        regularisation: float,
        n_select: int,
        chunk_size: int,
        ticker: Ticker,
    ) -> None:
        self._pool = pool
        self._regularisation = regularisation
        self.variance = pool.diagonal64()
        largest = float(self.variance.max())
        check_resolution(regularisation, largest)
        self._margin = ROUNDING * largest
        self._taken = torch.zeros(len(pool), dtype=torch.bool, device=self.variance.device)
        self._n_columns = len(train)
        self._factor = self.variance.new_empty((len(pool), len(train) + n_select))
        self.lower = train_factor(train, regularisation)
        for rows in chunks(len(pool), chunk_size):
            part = whitened(pool, rows, train, self.lower)
            self._factor[rows, : self._n_columns] = part
            self.variance[rows] -= part.square().sum(dim=1)
            ticker.advance()

    @property
    def factor(self) -> Float[Tensor, "n c"]:
        """F of the labelled structures and the picks so far, (n, m + picks), a view."""
        return self._factor[:, : self._n_columns]

    def argmax(self) -> tuple[int, float]:
        """Return the structure of largest variance among those not picked, and that."""
        row = first_max(self.variance, self._margin)
        return row, max(float(self.variance[row]), 0.0)

    def condition(self, pick: int, variance: float) -> Float[Tensor, " n"]:
        """Condition on ``pick``, whose variance is given.

        Returns:
            What each structure's covariance with it was, over √(variance + λ), (n,).
        """
        z = torch.tensor([pick], device=self.variance.device)
        known = self.factor
        column = self._pool.block64(slice(None), self._pool, z)[:, 0] - known @ known[pick]
        column /= (variance + self._regularisation) ** 0.5
        self._factor[:, self._n_columns] = column
        self._n_columns += 1
        self.variance -= column.square()
        self._taken[pick] = True
        self.variance.masked_fill_(self._taken, -torch.inf)
        return column


def train_factor(train: Kernel, regularisation: float) -> Float[Tensor, "m m"]:
    """Return L of LLᵀ = K_TT + λI, (m, m) float64.

    Raises:
        SelectionError: λ is too small for float64, or the kernel is not positive
            semi-definite.
    """
    return positive_factor(train.block64(slice(None), train, slice(None)), regularisation)


def whitened(
    pool: Kernel, rows: slice, train: Kernel, lower: Float[Tensor, "m m"]
) -> Float[Tensor, "r m"]:
    """Return k(x, T) L⁻ᵀ for the structures ``rows``, (r, m) float64."""
    values = pool.block64(rows, train, slice(None))
    white: Tensor = torch.linalg.solve_triangular(lower, values.T, upper=False)
    return white.T


def cholesky_variances(
    pool: Kernel, train: Kernel, regularisation: float, chunk_size: int, ticker: Ticker
) -> Float[Tensor, " n"]:
    """Return the posterior variances of a pool given the labelled structures, (n,)."""
    variance = pool.diagonal64()
    lower = train_factor(train, regularisation)
    for rows in chunks(len(pool), chunk_size):
        variance[rows] -= whitened(pool, rows, train, lower).square().sum(dim=1)
        ticker.advance()
    return variance.clamp_min_(0.0)
