"""The joint energy-force posterior: structures as sets of rows in one linear-Gaussian model.

Weights δ ~ N(0, I); a row r of a labelled structure is seen as rᵀδ plus noise of variance λ.
With the labelled rows Φ, δ has the covariance P = λ(ΦᵀΦ + λI)⁻¹, and the score of a structure
with rows R is its total predictive variance, tr(R P Rᵀ). Labelling z adds all of its rows,

    P ← P − P Zᵀ (Z P Zᵀ + λI)⁻¹ Z P,

so with W = L⁻¹ZP and LLᵀ = ZPZᵀ + λI the score of x falls by ‖R Wᵀ‖²: a pending term, which is
applied only where a stale score, an upper bound since variances only fall, is still among the
largest (Minoux 1978). The picks are those of the full update. All of it is float64.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.errors import SelectionError
from labelwise.features.representations.row_sets import RowSets, drop_empty_columns
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.options import DEFAULT_JOINT_REGULARISATION as DEFAULT_JOINT_REGULARISATION
from labelwise.selection.rules.base import (
    ROUNDING,
    TIE,
    ProgressCallback,
    Selection,
    Ticker,
    check_n_select,
    check_regularisation,
    check_resolution,
    first_max,
    positive_factor,
)
from labelwise.selection.rules.linear_posterior import LinearPrior
from labelwise.selection.rules.registry import Rule, register_rule
from labelwise.selection.rules.unlabelled import TIE_FLOAT32, order_prior

#: The rule that takes structures as sets of rows, not as rows.
JOINT_RULE = "joint-pv"
# Bounds of memory: rows of so many structures are multiplied, or brought up to date, at once.
_STRUCTURES_AT_ONCE = 256
_REFRESH = 64


class JointPosterior:
    """The posterior of the weights given labelled structures.

    Args:
        train: The labelled structures, weighed, (m,), may be empty.
        regularisation: λ, the noise variance, > 0.

    Raises:
        SelectionError: λ is out of range, or too small against the rows for float64.
    """

    def __init__(
        self, train: RowSets, regularisation: float = DEFAULT_JOINT_REGULARISATION
    ) -> None:
        check_regularisation(regularisation)
        self.regularisation = regularisation
        self._directions = torch.zeros(0, train.dim, dtype=torch.float64)
        self._prior: LinearPrior | None = None
        if len(train):
            self._prior = LinearPrior(_as_kernel(train.rows), regularisation)

    @property
    def is_prior(self) -> bool:
        """Whether nothing is labelled and nothing was added."""
        return self._prior is None and len(self._directions) == 0

    @property
    def directions(self) -> Float[Tensor, "s d"]:
        """W of all structures that were added, one below the other, (s, d) float64."""
        return self._directions

    def variances(self, sets: RowSets) -> Float[Tensor, " n"]:
        """Return tr(R P Rᵀ) of each structure, (n,) float64, in the units of the rows squared."""
        return torch.cat([torch.zeros(0, dtype=torch.float64), *self._by_parts(sets)])

    def _by_parts(self, sets: RowSets) -> list[Float[Tensor, " _"]]:
        parts = []
        for structures in torch.split(torch.arange(len(sets)), _STRUCTURES_AT_ONCE):
            part = sets.take(structures)
            rows = self.row_variances(part.rows)
            total = torch.zeros(len(part), dtype=torch.float64)
            parts.append(total.index_add_(0, part.owner, rows))
        return parts

    def row_variances(self, rows: Float[Tensor, "r d"]) -> Float[Tensor, " r"]:
        """Return rᵀPr of each row, (r,) float64."""
        wide = rows.double()
        prior = wide.square().sum(1) if self._prior is None else self._prior.variance(wide)
        return (prior - (wide @ self._directions.T).square().sum(1)).clamp_min(0.0)

    def covariance(self, rows: Float[Tensor, "r d"]) -> Float[Tensor, "r r"]:
        """Return R P Rᵀ, (r, r) float64: the covariances of one structure's energy and forces."""
        wide = rows.double()
        return self._apply(wide) @ wide.T

    def add(self, rows: Float[Tensor, "r d"]) -> Float[Tensor, "r d"]:
        """Condition on the rows of one structure.

        Args:
            rows: All of its rows, weighed.

        Returns:
            W, (r, d) float64; the variance of a row x falls by ‖Wx‖².

        Raises:
            SelectionError: λ is too small against the rows for float64.
        """
        wide = rows.double()
        applied = self._apply(wide)
        gram = applied @ wide.T
        lower = positive_factor(0.5 * (gram + gram.T), self.regularisation)
        directions: Tensor = torch.linalg.solve_triangular(lower, applied, upper=False)
        self._directions = torch.cat([self._directions, directions])
        return directions

    def _apply(self, wide: Float[Tensor, "r d"]) -> Float[Tensor, "r d"]:
        """Return R P."""
        prior = wide if self._prior is None else self._prior.apply(wide)
        return prior - (wide @ self._directions.T) @ self._directions


def joint_variances(
    sets: RowSets, train: RowSets, *, regularisation: float = DEFAULT_JOINT_REGULARISATION
) -> Float[Tensor, " n"]:
    """Return the total posterior variance of each structure's energy and forces.

    Args:
        sets: The structures, weighed, (n,).
        train: The labelled structures, weighed alike, (m,), may be empty.
        regularisation: λ, the noise variance in units of the mean prior variance, > 0.

    Returns:
        (n,) float64.

    Raises:
        SelectionError: λ is out of range.
    """
    small, small_train = drop_empty_columns(sets, train)
    return JointPosterior(small_train, regularisation).variances(small)


def select_joint_posterior(
    pool: RowSets,
    train: RowSets,
    n_select: int,
    *,
    regularisation: float = DEFAULT_JOINT_REGULARISATION,
    per_atom: bool = False,
    progress: ProgressCallback | None = None,
) -> Selection:
    """Pick the structure of largest joint posterior variance, condition on all its rows, repeat.

    With nothing labelled and equal prior variances (cosine) the first pick is the one whose
    rows have most in common with the pool's.

    Args:
        pool: The pool, weighed (``RowScales.weigh``), (n_pool,).
        train: The labelled structures, weighed alike, (n_train,), may be empty.
        n_select: Structures to pick, 1 <= n_select <= n_pool.
        regularisation: λ, the noise variance in units of the mean prior variance, > 0.
        per_atom: Whether the variance is divided by the number of atoms before it is compared.
        progress: Called as ``progress(done, total)`` in units of work.

    Returns:
        pool_idx (n_select,) int64 in order of choice; score (n_select,), the variance when
        chosen, dimensionless (of an average structure: one, a priori).

    Raises:
        SelectionError: n_select or regularisation out of range, or a row that is not finite.

    Source: multi-output Gaussian-process posterior, Rasmussen and Williams 2006, section 2.2,
    for the linear kernels of arXiv:2605.13788.
    """
    check_n_select(n_select, len(pool))
    check_regularisation(regularisation)
    for name, sets in (("pool", pool), ("train", train)):
        if not all(sets.is_finite()):
            where = sets.is_finite().index(False)
            raise SelectionError(f"{name} structure {where} has rows that are not finite")
    ticker = Ticker(progress, 1 + n_select)
    small, small_train = drop_empty_columns(pool, train)
    state = _LazyScores(small, small_train, regularisation, per_atom=per_atom)
    ticker.advance()
    picks: list[int] = []
    scores: list[float] = []
    for _ in range(n_select):
        pick, score = state.argmax() if picks or len(train) else state.argmax_unlabelled()
        state.condition(pick)
        picks.append(pick)
        scores.append(score)
        ticker.advance()
    return Selection.from_lists(picks, scores)


class _LazyScores:
    """Upper bounds on the scores of a pool, made exact on demand."""

    def __init__(
        self, pool: RowSets, train: RowSets, regularisation: float, *, per_atom: bool
    ) -> None:
        self._pool = pool
        energy, force = pool.squares()
        largest = float((energy + force).max())
        check_resolution(regularisation, largest)
        self._posterior = JointPosterior(train, regularisation)
        self._divisor = pool.n_atoms.double() if per_atom else torch.ones(len(pool)).double()
        self._bound = self._posterior.variances(pool) / self._divisor
        self._margin = ROUNDING * largest
        self._applied = torch.zeros(len(pool), dtype=torch.int64)

    def argmax(self) -> tuple[int, float]:
        """Return the structure of largest score among those not picked, and that."""
        n_known = len(self._posterior.directions)
        while True:
            best = float(self._bound.max())
            width = max(self._margin, TIE * abs(best))
            contenders = torch.nonzero(self._bound >= best - width).squeeze(1)
            if bool((self._applied[contenders] == n_known).all()):
                row = first_max(self._bound, self._margin)
                return row, max(float(self._bound[row]), 0.0)
            size = min(len(self._bound), max(_REFRESH, len(contenders)))
            self._refresh(torch.topk(self._bound, size).indices.sort().values)

    def argmax_unlabelled(self) -> tuple[int, float]:
        """Return the largest score; of equal ones the structure most like all others."""
        row = int(prior_order_of_sets(self._pool, self._bound)[0])
        return row, float(self._bound[row])

    def condition(self, pick: int) -> None:
        """Condition on a pick."""
        self._posterior.add(self._pool.take(torch.tensor([pick])).rows)
        self._bound[pick] = -torch.inf

    def _refresh(self, structures: Int64[Tensor, " k"]) -> None:
        """Apply the pending terms of some structures, those of like age together."""
        directions = self._posterior.directions
        stale = structures[self._applied[structures] < len(directions)]
        stale = stale[torch.isfinite(self._bound[stale])]
        by_age = stale[torch.argsort(self._applied[stale], stable=True)]
        for group in torch.split(by_age, _STRUCTURES_AT_ONCE) if len(by_age) else ():
            part = self._pool.take(group)
            applied = self._applied[group]
            oldest = int(applied[0])
            fall = (part.rows.double() @ directions[oldest:].T).square_()
            number = torch.arange(oldest, len(directions))
            fall.masked_fill_(number[None, :] < applied[part.owner][:, None], 0.0)
            total = torch.zeros(len(part), dtype=torch.float64)
            total.index_add_(0, part.owner, fall.sum(1))
            self._bound[group] -= total / self._divisor[group]
        self._applied[structures] = len(directions)


def prior_order_of_sets(sets: RowSets, score: Float[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Return all structures, (n,), best first, where nothing is labelled.

    Under the cosine all prior variances are equal, and the largest would be whichever rounds
    up. Those of the largest score within rounding come first, ordered by the mean over the pool
    of ‖R_x R_zᵀ‖² as far as the precision of the rows goes; what is equal stays in pool order.

    Args:
        sets: The structures, weighed, (n,).
        score: Their prior scores, (n,) float64.
    """
    tie = TIE_FLOAT32 if sets.rows.dtype == torch.float32 else TIE
    tied = score >= (1.0 - tie) * score.max()
    return order_prior(score, tied, lambda: _likeness(sets, tie))


def _likeness(sets: RowSets, tie: float) -> Float[Tensor, " n"]:
    """Return the mean of ‖R_x R_zᵀ‖² over all z, (n,) float64, to multiples of its rounding."""
    (small,) = drop_empty_columns(sets)
    rows = small.rows.double()
    mean = rows.T @ rows / len(small)
    likeness = torch.zeros(len(small), dtype=torch.float64)
    likeness.index_add_(0, small.owner, ((rows @ mean) * rows).sum(1))
    largest = float(likeness.max())
    quantum = max(tie * largest, torch.finfo(torch.float64).tiny)
    return largest - torch.round((largest - likeness) / quantum) * quantum


def _as_kernel(rows: Float[Tensor, "R d"]) -> LinearKernel:
    return LinearKernel(rows, normalise="none")


register_rule(
    Rule(
        JOINT_RULE,
        select_joint_posterior,
        says="the largest joint posterior variance of energy and forces given all earlier picks",
        score_name="joint variance when chosen",
        why="The posterior variance of its energy and forces together, {score:.3g}, was the "
        "largest {of_what}, given {given}.",
        takes="row-sets",
        regularisation=DEFAULT_JOINT_REGULARISATION,
        normalise="none",
    )
)
