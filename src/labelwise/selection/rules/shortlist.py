"""Shortlist: the most uncertain K structures of a pool too large to diversify.

Float32 features are multiplied once, in float32, to find out which structures are certainly in
and which certainly out (``variance_filter``). Those in between are decided in float64, so the
shortlist is that of float64 variances.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.errors import SelectionError
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel
from labelwise.kernels.linear import FeatureKernel
from labelwise.selection.rules.base import DEFAULT_REGULARISATION, TIE, ProgressCallback, Ticker
from labelwise.selection.rules.linear_posterior import LinearPrior
from labelwise.selection.rules.posterior_variance import (
    check_variance_arguments,
    posterior_variance,
)
from labelwise.selection.rules.top import fall_in_order, variance_order
from labelwise.selection.rules.variance_filter import RunningTop, VarianceFilter


def shortlist_by_variance(
    pool: Kernel,
    train: Kernel,
    n_shortlist: int,
    *,
    regularisation: float = DEFAULT_REGULARISATION,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    progress: ProgressCallback | None = None,
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the structures of largest posterior variance given the labelled ones.

    The pool is scored chunk by chunk, in one pass over float32 features; what is kept are
    bounds on the variances of those that may still be in, or n variances otherwise.

    Args:
        pool: The pool's kernel, (n_pool,) structures, dimensionless.
        train: The labelled structures, (n_train,), may be empty: then the order is that
            of ``unlabelled.prior_order``.
        n_shortlist: Structures to keep, >= 1; above n_pool all are kept.
        regularisation: λ, the noise variance in units of the kernel, > 0.
        chunk_size: Pool structures a block; no effect on the result.
        progress: Called as ``progress(done, total)`` in units of work.

    Returns:
        Pool indices, (min(n_shortlist, n_pool),) int64, ascending.

    Raises:
        SelectionError: An argument out of range, or a non-finite kernel value.
        ArgumentError: The kernels do not belong together.

    Source: the OC20 setting of arXiv:2605.13788.
    """
    if n_shortlist < 1:
        raise SelectionError(f"shortlist={n_shortlist}: allowed are whole numbers from 1")
    if len(train) > 0 and isinstance(pool, FeatureKernel) and pool.dtype == torch.float32:
        kept = _shortlist_filtered(pool, train, n_shortlist, regularisation, chunk_size, progress)
        if kept is not None:
            return kept
    variance = posterior_variance(
        pool, train, regularisation=regularisation, chunk_size=chunk_size, progress=progress
    )
    order = variance_order(pool, train, variance, chunk_size)[:n_shortlist]
    return np.sort(order.cpu().numpy())


def decide_shortlist(
    top: RunningTop,
    prior: LinearPrior,
    n_shortlist: int,
    read_rows: Callable[[Int64[Tensor, " k"]], Float[Tensor, "k d"]],
    *,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """Return the shortlist from bounds on all variances, deciding what they leave open.

    Args:
        top: The bounds of all structures, of a running top of ``n_shortlist``.
        prior: P of the labelled structures.
        n_shortlist: Structures to keep, >= 1.
        read_rows: Returns φ of some structures, (k, d), ascending pool indices.
        chunk_size: Rows to have at once.

    Returns:
        Pool indices, (n_shortlist,) int64, ascending, or fewer if the pool is smaller. None if
        the bounds did not hold: then variances must be had in float64.

    Raises:
        SelectionError: A variance is not finite.
    """
    width = 2.0 * TIE * top.largest_diagonal
    found = top.finish(width)
    if found is None:
        return None
    certain, undecided, (lower, upper) = found
    parts = [
        prior.variance(read_rows(part).to(torch.float64))
        for part in torch.split(undecided, chunk_size)
    ]
    variance = torch.cat(parts)
    if bool(((variance < lower - width) | (variance > upper + width)).any()):
        return None
    best = fall_in_order(variance, top.largest_diagonal)[: n_shortlist - len(certain)]
    return np.sort(torch.cat([certain, undecided[best]]).cpu().numpy())


def _shortlist_filtered(
    pool: FeatureKernel,
    train: Kernel,
    n_shortlist: int,
    regularisation: float,
    chunk_size: int,
    progress: ProgressCallback | None,
) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """Map the filter over the pool and reduce; None if its bounds did not hold."""
    check_variance_arguments(pool, train, regularisation, chunk_size)
    prior = LinearPrior(pool.checked_partner(train), regularisation)
    scores = VarianceFilter(prior)
    top = RunningTop(n_shortlist)
    parts = pool.chunks(chunk_size)
    ticker = Ticker(progress, len(parts))
    for part in parts:
        rows, sq_norms = pool.rows_and_norms(part)
        top.add(scores.score(rows, part.start, sq_norms))
        ticker.advance()
    return decide_shortlist(top, prior, n_shortlist, pool.rows, chunk_size=chunk_size)
