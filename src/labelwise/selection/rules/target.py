"""V-optimality: the structure whose label lowers the variances of a target most.

A label of x takes cov(t, x)² / (σ²(x) + λ) from the variance of every structure t of the target,
where cov and σ² are posterior, given the labelled structures and the picks so far. The gain of x is
the mean of that over the target, and each pick takes its own part from all of them: with
v(x) = cov(x, z) / √(σ²(z) + λ) of a pick z,

    cov(t, x) ← cov(t, x) − v(t) v(x),        σ²(x) ← σ²(x) − v(x)².

The sum over the target is a quadratic form of the row, Σ cov(t, x)² = φᵀ P S P φ with
S = Σ φ_t φ_tᵀ and P as in ``linear_posterior``, so that rows cost two products a pick, however
large the target is. Gains may rise as well as fall, so none of them can be put off: rows that do
not fit into memory are read once a pick, and a shortlist keeps what gains most by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import SelectionError
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel, chunks
from labelwise.kernels.linear import FeatureKernel
from labelwise.runtime.memory import format_bytes, usable_memory_bytes
from labelwise.selection.rules.base import (
    DEFAULT_REGULARISATION,
    ROUNDING,
    ProgressCallback,
    Selection,
    Ticker,
    check_n_select,
    check_resolution,
    first_max,
)
from labelwise.selection.rules.linear_posterior import LinearPrior, gram_of, prior_bytes
from labelwise.selection.rules.pivoted_cholesky import CholeskyVariances, whitened
from labelwise.selection.rules.posterior_variance import check_variance_arguments
from labelwise.selection.rules.registry import Rule, register_rule
from labelwise.selection.rules.top import fall_in_order

#: Below this part of the squares as last summed, what subtracting leaves is not good to ten digits.
_WORN = 1e-5


def select_target(
    pool: Kernel,
    train: Kernel,
    n_select: int,
    *,
    target: Kernel | None = None,
    regularisation: float = DEFAULT_REGULARISATION,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    progress: ProgressCallback | None = None,
) -> Selection:
    """Pick the structure whose label lowers the target's mean variance most, and repeat.

    Args:
        pool: The pool's kernel, (n_pool,) structures, dimensionless.
        train: The labelled structures under the same representation, (n_train,), may be empty.
        n_select: Structures to pick, 1 <= n_select <= n_pool.
        target: The structures that matter, (t,), t >= 1; None for the pool itself.
        regularisation: λ, the noise variance in units of the kernel, > 0.
        chunk_size: Pool structures a block; no effect on the picks.
        progress: Called as ``progress(done, total)`` in units of work.

    Returns:
        pool_idx (n_select,) int64 in order of choice; score (n_select,), by how much the mean
        posterior variance of the target falls, in units of the kernel.

    Raises:
        SelectionError: n_select, regularisation or chunk_size out of range, an empty target, or a
            kernel value that is not finite.
        ArgumentError: The kernels do not belong together.

    Source: Yu, Bi and Tresp, ICML 2006, 1081 (transductive experimental design); with the pool as
    its target BAIT of Ash et al., NeurIPS 2021, for regression, without its backward steps.
    """
    check_n_select(n_select, len(pool))
    ticker = Ticker(progress, len(pool.chunks(chunk_size)) + n_select)
    gains = _open_gains(pool, train, target, regularisation, n_select, chunk_size, ticker)
    picks: list[int] = []
    scores: list[float] = []
    for _ in range(n_select):
        gain = gains.values()
        gain[picks] = -torch.inf
        pick = first_max(gain, gains.margin)
        picks.append(pick)
        scores.append(max(float(gain[pick]), 0.0))
        gains.condition(pick)
        ticker.advance()
    return Selection.from_lists(picks, scores)


def shortlist_by_gain(
    pool: Kernel,
    train: Kernel,
    n_shortlist: int,
    *,
    target: Kernel | None = None,
    regularisation: float = DEFAULT_REGULARISATION,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    progress: ProgressCallback | None = None,
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the structures of which a label by itself lowers the target's variance most.

    Arguments and errors are those of ``select_target``, and so many to keep, n_shortlist >= 1, of
    which n_pool are enough.

    Returns:
        Pool indices, (min(n_shortlist, n_pool),) int64, ascending.
    """
    ticker = Ticker(progress, len(pool.chunks(chunk_size)))
    gains = _open_gains(pool, train, target, regularisation, 0, chunk_size, ticker)
    values = gains.values()
    order = fall_in_order(values, float(values.max()))[:n_shortlist]
    return np.sort(order.cpu().numpy())


class _Gains(ABC):
    """By how much a label of each structure lowers the mean variance of a target.

    Attributes:
        margin: Gains that differ by less are equal within rounding, in units of the kernel.
    """

    margin: float

    @abstractmethod
    def values(self) -> Float[Tensor, " n"]:
        """Return the gains given the picks so far, (n,) float64, fresh."""

    @abstractmethod
    def condition(self, pick: int) -> None:
        """Condition on a pick."""


def _open_gains(
    pool: Kernel,
    train: Kernel,
    target: Kernel | None,
    regularisation: float,
    n_select: int,
    chunk_size: int,
    ticker: Ticker,
) -> _Gains:
    """Return the gains before the first pick."""
    target = pool if target is None else target
    check_variance_arguments(pool, train, regularisation, chunk_size)
    pool.check_partner(target)
    if len(target) == 0:
        raise SelectionError("the target holds no structures: at least one is needed")
    if isinstance(pool, FeatureKernel):
        labelled, wanted = pool.checked_partner(train), pool.checked_partner(target)
        return _LinearGains(pool, labelled, wanted, regularisation, n_select, chunk_size, ticker)
    return _KernelGains(pool, train, target, regularisation, n_select, chunk_size, ticker)


class _LinearGains(_Gains):
    """Of rows: two numbers a structure, and products with rows as they pass."""

    def __init__(
        self,
        pool: FeatureKernel,
        train: FeatureKernel,
        target: FeatureKernel,
        regularisation: float,
        n_select: int,
        chunk_size: int,
        ticker: Ticker,
    ) -> None:
        self._pool, self._chunk_size = pool, chunk_size
        self._regularisation, self._n_target = regularisation, len(target)
        self._prior = LinearPrior(train, regularisation)
        self._root = _root(target)
        self._directions = self._root.new_empty((n_select, pool.width))
        self._n_picks = 0
        self._squares = self._root.new_empty(len(pool))
        self._variance = self._root.new_empty(len(pool))
        self._measure(ticker)
        check_resolution(regularisation, float(pool.diagonal().max()))
        self.margin = _find_margin(self._squares, regularisation, self._n_target)

    def values(self) -> Float[Tensor, " n"]:
        noisy = self._variance + self._regularisation
        return self._squares / noisy.mul_(self._n_target)

    def condition(self, pick: int) -> None:
        row = torch.tensor([pick], device=self._squares.device)
        noisy = float(self._variance[pick]) + self._regularisation
        direction = self._apply(self._pool.rows(row)[0].to(torch.float64)) / noisy**0.5
        reached = self._root @ direction
        both = torch.stack([direction, self._apply(self._root.T @ reached)], dim=1)
        self._directions[self._n_picks] = direction
        self._n_picks += 1
        self_reach = float(reached.square().sum())
        for rows in self._pool.chunks(self._chunk_size):
            along, across = (self._pool.rows(rows).to(torch.float64) @ both).T
            fall = along * (2.0 * across - self_reach * along)
            self._squares[rows] = (self._squares[rows] - fall).clamp_min_(0.0)
            self._variance[rows] = (self._variance[rows] - along.square()).clamp_min_(0.0)
        if float(self._squares.max()) < _WORN * self._fresh:
            self._measure(Ticker(None, 0))

    def _measure(self, ticker: Ticker) -> None:
        """Make both numbers anew: differences of large ones are all rounding."""
        posterior, known = self._apply(self._root), self._directions[: self._n_picks]
        for rows in self._pool.chunks(self._chunk_size):
            phi = self._pool.rows(rows).to(torch.float64)
            self._squares[rows] = (phi @ posterior.T).square_().sum(dim=1)
            fall = (phi @ known.T).square_().sum(dim=1)
            self._variance[rows] = (self._prior.variance(phi) - fall).clamp_min_(0.0)
            ticker.advance()
        self._fresh = float(self._squares.max())

    def _apply(self, phi: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """Return Pφ given the picks so far, of one row, (d,), or of each of many, (r, d)."""
        known = self._directions[: self._n_picks]
        return self._prior.apply(phi) - (phi @ known.T) @ known


def _root(target: FeatureKernel) -> Float[Tensor, "r d"]:
    """Return R of RᵀR = Σ φ_t φ_tᵀ, (min(t, d), d) float64."""
    if len(target) <= target.width:
        return target.rows(slice(None)).to(torch.float64)
    size, axes = torch.linalg.eigh(gram_of(target))
    root: Tensor = size.clamp_min_(0.0).sqrt_()[:, None] * axes.T
    return root


class _KernelGains(_Gains):
    """Of any kernel: the covariances of all structures with the target, n × t."""

    def __init__(
        self,
        pool: Kernel,
        train: Kernel,
        target: Kernel,
        regularisation: float,
        n_select: int,
        chunk_size: int,
        ticker: Ticker,
    ) -> None:
        needed, usable = 24 * len(pool) * len(target), usable_memory_bytes()
        if needed > usable:
            raise SelectionError(
                f"the covariances of {len(pool)} structures with {len(target)} of the target take "
                f"{format_bytes(needed)}, of which there are {format_bytes(usable)}: give a "
                "smaller target, or a representation of the model, which needs none of them"
            )
        self._variances = CholeskyVariances(
            pool, train, regularisation, n_select, chunk_size, ticker
        )
        self._regularisation = regularisation
        mine = self._variances.factor
        theirs = whitened(target, slice(None), train, self._variances.lower)
        self._covariance = theirs.new_empty((len(pool), len(target)))
        for rows in chunks(len(pool), chunk_size):
            values = pool.block64(rows, target, slice(None))
            self._covariance[rows] = values - mine[rows] @ theirs.T
        squares = self._covariance.square().sum(dim=1)
        self.margin = _find_margin(squares, regularisation, len(target))

    def values(self) -> Float[Tensor, " n"]:
        noisy = self._variances.variance + self._regularisation
        return self._covariance.square().mean(dim=1) / noisy

    def condition(self, pick: int) -> None:
        noisy = float(self._variances.variance[pick]) + self._regularisation
        reached = self._covariance[pick] / noisy**0.5
        column = self._variances.condition(pick, noisy - self._regularisation)
        self._covariance.addr_(column, reached, alpha=-1.0)


def _find_margin(squares: Float[Tensor, " n"], regularisation: float, n_target: int) -> float:
    """Return what rounding may make of a gain, where the variance is all explained."""
    return ROUNDING * float(squares.max()) / (regularisation * n_target)


def _state_bytes(n: int, d: int, n_train: int, n_select: int) -> int:
    return 64 * n + 8 * d * (n_select + 4 * d) + prior_bytes(d, n_train)


register_rule(
    Rule(
        "target",
        select_target,
        says="the largest fall of the mean variance of the target (where none is named, of the "
        "pool), given all earlier picks",
        score_name="fall of the target's variance",
        why="Its label lowers the mean posterior variance of the target by {score:.3g}, the most "
        "{of_what}, given {given}.",
        state_bytes=_state_bytes,
        takes_target=True,
    )
)
