"""Shortlist: the most uncertain K structures of a pool too large to diversify."""

from __future__ import annotations

import numpy as np

from labelwise.errors import SelectionError
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel
from labelwise.selection.rules.base import DEFAULT_REGULARISATION, ProgressCallback
from labelwise.selection.rules.posterior_variance import posterior_variance
from labelwise.selection.rules.top import variance_order


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

    The pool is scored chunk by chunk, in one pass; what is kept are n variances.

    Arguments are those of ``posterior_variance``, and so many to keep, n_shortlist >= 1, of which
    n_pool are enough. With nothing labelled the order is that of ``unlabelled.prior_order``.

    Returns:
        Pool indices, (min(n_shortlist, n_pool),) int64, ascending.

    Raises:
        SelectionError: An argument out of range, or a non-finite kernel value.
        ArgumentError: The kernels do not belong together.

    Source: the OC20 setting of arXiv:2605.13788.
    """
    if n_shortlist < 1:
        raise SelectionError(f"shortlist={n_shortlist}: allowed are whole numbers from 1")
    variance = posterior_variance(
        pool, train, regularisation=regularisation, chunk_size=chunk_size, progress=progress
    )
    order = variance_order(pool, train, variance, chunk_size)[:n_shortlist]
    return np.sort(order.cpu().numpy())
