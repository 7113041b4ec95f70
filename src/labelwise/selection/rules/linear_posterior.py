"""Posterior variances under a linear kernel, brought up to date only where it matters.

With labelled features Φ (m × d) and A = ΦᵀΦ + λI, the variance is λ φᵀA⁻¹φ. Conditioning
on a pick z takes w wᵀ from P = λA⁻¹, with w = Pz / sqrt(zᵀPz + λ), so the variance of x
falls by (φᵀw)²: a *pending* term that can be applied at any later time, many at once, as
one matrix product. Since variances only fall, one with pending terms is an upper bound
(Minoux 1978), and a structure whose bound is below the best up-to-date variance need not
be looked at. The picks are those of the full update, and the features are only read.

The prior term comes in two forms, the cheaper is taken: for m >= d, ‖Bφ‖² with
B = √λ L⁻¹ and LLᵀ = A (d × d); for m < d, k(x,x) - ‖Bφ‖² with B = L⁻¹Φ and
LLᵀ = ΦΦᵀ + λI (m × d). All of it is float64.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labelwise.kernels.linear import FeatureKernel
from labelwise.selection.rules.base import (
    ROUNDING,
    TIE,
    Ticker,
    check_resolution,
    first_max,
    positive_factor,
    threads_for,
)

# benchmarks/results/constants.md: a quarter and four times of each change times by 4 % at most;
# what they bound is memory.
_ACTIVE_BYTES = 2**22
_ROWS_AT_ONCE = 512
_LEAST_ACTIVE, _MOST_ACTIVE = 128, 2048


class LinearPrior:
    """P = λA⁻¹ of the labelled structures, as a factor B.

    Attributes:
        factor: B, float64: (d, d), lower triangular, for m >= d; (m, d) for m < d.
        subtracts: Whether the variance is k(x,x) - ‖Bφ‖², as for m < d, and not ‖Bφ‖².

    Args:
        train: The labelled structures, (m,), m >= 0.
        regularisation: λ, dimensionless, > 0.

    Raises:
        SelectionError: λ is too small against the features for float64.
    """

    def __init__(self, train: FeatureKernel, regularisation: float) -> None:
        self.subtracts = len(train) < train.width
        if not self.subtracts:
            self.factor = _inverse_factor(gram_of(train), regularisation)
            return
        phi = train.rows(slice(None)).to(torch.float64)
        lower = positive_factor(phi @ phi.T, regularisation)
        self.factor = torch.linalg.solve_triangular(lower, phi, upper=False)

    def variance(self, phi: Float[Tensor, "r d"]) -> Float[Tensor, " r"]:
        """Return φᵀPφ of rows given in float64, (r,)."""
        explained: Tensor = (phi @ self.factor.T).square_().sum(dim=1)
        if not self.subtracts:
            return explained
        return (phi.square().sum(dim=1) - explained).clamp_min_(0.0)

    def apply(self, phi: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """Return Pφ of one row, (d,), or of each of many, (r, d); float64."""
        product: Tensor = (phi @ self.factor.T) @ self.factor
        return phi - product if self.subtracts else product


def gram_of(rows: FeatureKernel) -> Float[Tensor, "d d"]:
    """Return ΦᵀΦ, (d, d) float64, summed piece by piece in order: that decides the last bits."""
    gram = torch.zeros(rows.width, rows.width, dtype=torch.float64, device=rows.device)
    for piece in rows.pieces():
        phi = rows.rows(piece).to(torch.float64)
        gram += phi.T @ phi
    return gram


def _inverse_factor(gram: Float[Tensor, "d d"], regularisation: float) -> Float[Tensor, "d d"]:
    """Return B = √λ L⁻¹ of LLᵀ = gram + λI, lower triangular; ``gram`` is written to."""
    lower = positive_factor(gram, regularisation)
    right = regularisation**0.5 * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor: Tensor = torch.linalg.solve_triangular(lower, right, upper=False)
    return factor


class LazyVariances:
    """Upper bounds on the posterior variances of a pool, made exact on demand.

    Args:
        pool: The pool's kernel, (n,) structures.
        prior: P of the labelled structures.
        regularisation: λ, dimensionless, > 0.
        n_select: Picks to come.
        chunk_size: Pool structures a block.
        ticker: Told of each block of the first pass.

    Raises:
        SelectionError: λ is too small for float64.
    """

    def __init__(
        self,
        pool: FeatureKernel,
        prior: LinearPrior,
        regularisation: float,
        n_select: int,
        chunk_size: int,
        ticker: Ticker,
    ) -> None:
        self._pool = pool
        self._prior = prior
        self._regularisation = regularisation
        n, d = len(pool), pool.width
        largest = float(pool.diagonal().max())
        check_resolution(regularisation, largest)
        self._bound = linear_variances(pool, prior, chunk_size, ticker)
        self._margin = ROUNDING * largest
        self._taken = torch.zeros(n, dtype=torch.bool, device=pool.device)
        self._applied = torch.zeros(n, dtype=torch.int64, device=pool.device)
        self._directions = self._bound.new_empty((n_select, d))
        self._n_picks = 0
        self._n_active = _count_active(n, d)
        self._activate()

    def argmax(self) -> tuple[int, float]:
        """Return the structure of largest variance among those not picked, and that."""
        if self._is_settled():
            row = int(self._active[first_max(self._bound[self._active], self._margin)])
        else:
            self._activate()
            best = float(self._bound[self._active].max())
            self._refresh(torch.nonzero(self._bound >= best - self._width(best)).squeeze(1))
            row = first_max(self._bound, self._margin)
            self._activate()
        return row, max(float(self._bound[row]), 0.0)

    def _is_settled(self) -> bool:
        """Tell whether no bound outside the active structures reaches the best inside."""
        best = float(self._bound[self._active].max())
        return self._floor < best - self._width(best)

    def _width(self, best: float) -> float:
        """Return the difference that counts as a tie."""
        return max(self._margin, TIE * abs(best)) if best > -torch.inf else 0.0

    def condition(self, pick: int, variance: float) -> None:
        """Condition on ``pick``, whose up-to-date variance is given."""
        known = self._directions[: self._n_picks]
        row = torch.tensor([pick], device=self._applied.device)
        phi = self._pool.rows(row)[0].to(torch.float64)
        with threads_for(max(self._prior.factor.numel(), known.numel())):
            direction = self._prior.apply(phi) - known.T @ (known @ phi)
        direction /= (variance + self._regularisation) ** 0.5
        self._directions[self._n_picks] = direction
        self._n_picks += 1
        self._taken[pick] = True
        self._bound[pick] = -torch.inf
        with threads_for(self._active_phi.numel()):
            fall = (self._active_phi @ direction).square_()
        self._lower(self._active, fall)
        self._applied[self._active] = self._n_picks

    def _activate(self) -> None:
        """Choose the structures of the largest bounds and bring them up to date."""
        size = self._n_active
        largest = torch.topk(self._bound, min(size + 1, len(self._bound)))
        self._active = largest.indices[:size].sort().values
        self._floor = float(largest.values[size]) if size < len(self._bound) else -torch.inf
        self._refresh(self._active)
        self._active_phi = self._pool.rows(self._active).to(torch.float64)

    def _refresh(self, rows: Int[Tensor, " r"]) -> None:
        """Apply the pending terms of ``rows``, those of like age together.

        Rows on disk are read in pool order, and only those of one reading are sorted by age.
        """
        stale = rows[self._applied[rows] < self._n_picks]
        if self._pool.in_memory:
            by_age = stale[torch.argsort(self._applied[stale])]
            for part in torch.split(by_age, _ROWS_AT_ONCE) if by_age.numel() else ():
                self._apply_pending(part, self._pool.rows(part))
            return
        for places, _ in self._pool.parts(stale) if stale.numel() else ():
            read = stale[places]
            phi = self._pool.rows(read)
            by_age = torch.argsort(self._applied[read])
            for part in torch.split(by_age, _ROWS_AT_ONCE):
                self._apply_pending(read[part], phi[part])

    def _apply_pending(self, part: Int[Tensor, " r"], phi: Float[Tensor, "r d"]) -> None:
        """Apply the pending terms of structures in the order of age, whose rows are given."""
        applied = self._applied[part]
        oldest = int(applied[0])
        pending = self._directions[oldest : self._n_picks]
        with threads_for(len(part) * pending.numel()):
            fall = phi.to(torch.float64) @ pending.T
        number = torch.arange(oldest, self._n_picks, device=part.device)
        fall.masked_fill_(number[None, :] < applied[:, None], 0.0)
        self._lower(part, fall.square_().sum(dim=1))
        self._applied[part] = self._n_picks

    def _lower(self, rows: Int[Tensor, " r"], fall: Float[Tensor, " r"]) -> None:
        """Take ``fall`` from the bounds of structures; what is picked stays out of the running."""
        lowered = self._bound[rows] - fall
        self._bound[rows] = lowered.masked_fill_(self._taken[rows], -torch.inf)


def _count_active(n: int, d: int) -> int:
    """Return how many structures are kept up to date at every pick."""
    return min(n, max(_LEAST_ACTIVE, min(_MOST_ACTIVE, _ACTIVE_BYTES // (8 * d))))


def lazy_state_bytes(n: int, d: int, n_train: int, n_select: int) -> int:
    """Return what ``LazyVariances`` and the prior hold beside the rows, bytes: see ``Rule``."""
    return 64 * n + 8 * d * (n_select + _count_active(n, d)) + prior_bytes(d, n_train)


def prior_bytes(d: int, n_train: int) -> int:
    """Return what it takes to factorise the labelled rows, and to hold the factor, bytes."""
    size = min(n_train, d)
    return 8 * (2 * size * size + 2 * size * d) + 8 * n_train * d


def linear_variances(
    pool: FeatureKernel, prior: LinearPrior, chunk_size: int, ticker: Ticker
) -> Float[Tensor, " n"]:
    """Return the posterior variances of a pool given the labelled structures, (n,)."""
    variances = torch.empty(len(pool), dtype=torch.float64, device=pool.device)
    for rows in pool.chunks(chunk_size):
        variances[rows] = prior.variance(pool.rows(rows).to(torch.float64))
        ticker.advance()
    return variances
