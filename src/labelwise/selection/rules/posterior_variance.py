"""Posterior variance: the most uncertain structure, then the next given the first."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel
from labelwise.kernels.linear import FeatureKernel
from labelwise.selection.rules.base import (
    DEFAULT_REGULARISATION,
    ProgressCallback,
    Selection,
    Ticker,
    check_chunk_size,
    check_n_select,
    check_regularisation,
)
from labelwise.selection.rules.linear_posterior import (
    LazyVariances,
    LinearPrior,
    lazy_state_bytes,
    linear_variances,
)
from labelwise.selection.rules.pivoted_cholesky import CholeskyVariances, cholesky_variances
from labelwise.selection.rules.registry import Rule, register_rule
from labelwise.selection.rules.unlabelled import first_pick


def select_posterior_variance(
    pool: Kernel,
    train: Kernel,
    n_select: int,
    *,
    regularisation: float = DEFAULT_REGULARISATION,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    progress: ProgressCallback | None = None,
) -> Selection:
    """Pick the structure of largest posterior variance, condition on it, and repeat.

    σ²(x) = k(x,x) - k_T(x)ᵀ (K_TT + λI)⁻¹ k_T(x), where T is the labelled structures and
    the picks so far. Kernels with features take the form λ φᵀ(ΦᵀΦ + λI)⁻¹φ with lazy
    updates (``linear_posterior``), others a partial pivoted Cholesky factor
    (``pivoted_cholesky``). With nothing labelled the first pick is that of
    ``unlabelled.first_pick``.

    Arguments are those of ``posterior_variance``, and so many to pick, 1 <= n_select <= n_pool.

    Returns:
        pool_idx (n_select,) int64 in order of choice; score (n_select,), the variance
        when chosen, in units of the kernel.

    Raises:
        SelectionError: n_select, regularisation or chunk_size out of range, or a kernel
            value that is not finite.
        ArgumentError: The kernels do not belong together.

    Source: Rasmussen and Williams 2006, equation 2.26; as a greedy rule (MaxDet),
    Holzmüller et al., JMLR 24 (2023) 164, section 4.
    """
    check_n_select(n_select, len(pool))
    check_variance_arguments(pool, train, regularisation, chunk_size)
    ticker = Ticker(progress, len(pool.chunks(chunk_size)) + n_select)
    state: LazyVariances | CholeskyVariances
    if isinstance(pool, FeatureKernel):
        prior = LinearPrior(pool.checked_partner(train), regularisation)
        state = LazyVariances(pool, prior, regularisation, n_select, chunk_size, ticker)
    else:
        state = CholeskyVariances(pool, train, regularisation, n_select, chunk_size, ticker)
    picks: list[int] = []
    scores: list[float] = []
    for _ in range(n_select):
        if len(train) == 0 and not picks:
            diagonal = pool.diagonal64()
            pick = first_pick(pool, diagonal, chunk_size)
            variance = float(diagonal[pick])
        else:
            pick, variance = state.argmax()
        picks.append(pick)
        scores.append(variance)
        state.condition(pick, variance)
        ticker.advance()
    return Selection.from_lists(picks, scores)


def posterior_variance(
    pool: Kernel,
    train: Kernel,
    *,
    regularisation: float = DEFAULT_REGULARISATION,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    progress: ProgressCallback | None = None,
) -> Float[Tensor, " n"]:
    """Return the posterior variance of every pool structure given the labelled ones.

    Args:
        pool: The pool's kernel, (n_pool,) structures, dimensionless.
        train: The labelled structures under the same representation, (n_train,), may
            be empty: then it is k(x, x).
        regularisation: λ, the noise variance in units of the kernel, > 0.
        chunk_size: Pool structures a block.
        progress: Called as ``progress(done, total)`` in units of work.

    Returns:
        σ²(x) >= 0, (n_pool,) float64, in units of the kernel.

    Raises:
        SelectionError: regularisation or chunk_size out of range, or a kernel value that
            is not finite.
        ArgumentError: The kernels do not belong together.

    Source: Rasmussen and Williams 2006, equation 2.26.
    """
    check_variance_arguments(pool, train, regularisation, chunk_size)
    ticker = Ticker(progress, len(pool.chunks(chunk_size)))
    if isinstance(pool, FeatureKernel):
        prior = LinearPrior(pool.checked_partner(train), regularisation)
        return linear_variances(pool, prior, chunk_size, ticker)
    return cholesky_variances(pool, train, regularisation, chunk_size, ticker)


def check_variance_arguments(
    pool: Kernel, train: Kernel, regularisation: float, chunk_size: int
) -> None:
    """Check what all functions of posterior variances take.

    Raises:
        SelectionError: regularisation or chunk_size out of range.
        ArgumentError: The kernels do not belong together.
    """
    check_regularisation(regularisation)
    check_chunk_size(chunk_size)
    pool.check_partner(train)


register_rule(
    Rule(
        "pv",
        select_posterior_variance,
        says="the largest posterior variance given all earlier picks",
        score_name="variance when chosen",
        why="Its posterior variance, {score:.3g}, was the largest {of_what}, given {given}.",
        state_bytes=lazy_state_bytes,
    )
)
