"""The structures of the highest scores, without regard to each other."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from labelwise.errors import SelectionError
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel
from labelwise.selection.rules.base import (
    DEFAULT_REGULARISATION,
    TIE,
    ProgressCallback,
    Selection,
    check_n_select,
)
from labelwise.selection.rules.linear_posterior import prior_bytes
from labelwise.selection.rules.posterior_variance import posterior_variance
from labelwise.selection.rules.registry import Rule, register_rule
from labelwise.selection.rules.unlabelled import prior_order


def select_top(
    score: Float[Tensor, " n"] | np.ndarray[tuple[int], np.dtype[np.floating]], n_select: int
) -> Selection:
    """Pick the structures of the highest scores.

    Args:
        score: (n_pool,), any unit, finite; higher is picked first, equals in pool order.
        n_select: Structures to pick, 1 <= n_select <= n_pool.

    Returns:
        pool_idx (n_select,) int64 by falling score; score (n_select,), as given.

    Raises:
        SelectionError: n_select out of range, scores that are not one-dimensional or
            not finite (the message names the structure).
    """
    values = np.asarray(torch.as_tensor(score).detach().cpu().to(torch.float64).numpy())
    if values.ndim != 1:
        raise SelectionError(f"score has shape {values.shape}: allowed is (n_pool,)")
    check_n_select(n_select, len(values))
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise SelectionError(
            f"the score of structure {bad[0]} is {values[bad[0]]}: allowed are finite "
            "numbers; screen the structure out"
        )
    picks = np.argsort(-values, kind="stable")[:n_select].astype(np.int64)
    return Selection(picks, values[picks])


def select_top_variance(
    pool: Kernel,
    train: Kernel,
    n_select: int,
    *,
    regularisation: float = DEFAULT_REGULARISATION,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    progress: ProgressCallback | None = None,
) -> Selection:
    """Pick the structures of largest posterior variance given the labelled ones only.

    No pick is conditioned on another, so near-duplicates are picked together. With
    nothing labelled the order is that of ``unlabelled.prior_order``.

    Arguments are those of ``posterior_variance``, and so many to pick, 1 <= n_select <= n_pool.

    Returns:
        pool_idx (n_select,) int64 by falling variance; score (n_select,), the variance
        in units of the kernel.

    Raises:
        SelectionError: n_select, regularisation or chunk_size out of range, or a kernel
            value that is not finite.
        ArgumentError: The kernels do not belong together.

    Source: MaxDiag of Holzmüller et al., JMLR 24 (2023) 164, section 4.
    """
    check_n_select(n_select, len(pool))
    variance = posterior_variance(
        pool, train, regularisation=regularisation, chunk_size=chunk_size, progress=progress
    )
    order = variance_order(pool, train, variance, chunk_size)[:n_select]
    return Selection(order.cpu().numpy(), variance[order].cpu().numpy())


def variance_order(
    pool: Kernel, train: Kernel, variance: Float[Tensor, " n"], chunk_size: int
) -> Int[Tensor, " n"]:
    """Return the pool indices by falling posterior variance, (n,) int64.

    Variances that differ by less than 1e-12 of the largest k(x, x) count as equal and
    stay in pool order: the last bits of a product depend on the shape of its block.
    """
    diagonal = pool.diagonal64()
    if len(train) == 0:
        return prior_order(pool, diagonal, chunk_size)
    return fall_in_order(variance, float(diagonal.max()))


def fall_in_order(variance: Float[Tensor, " k"], largest_diagonal: float) -> Int[Tensor, " k"]:
    """Return places by falling variance, (k,) int64, equals in the order given.

    Args:
        variance: (k,) float64, in units of the kernel.
        largest_diagonal: The largest k(x, x) of the whole pool; ``TIE`` of it is rounding.
    """
    quantum = TIE * max(largest_diagonal, torch.finfo(torch.float64).tiny / TIE)
    return torch.argsort(torch.round(variance / quantum), descending=True, stable=True)


register_rule(
    Rule(
        "top",
        select_top_variance,
        says="the largest posterior variances given the labelled structures alone",
        score_name="variance when chosen",
        why="Its posterior variance given the labelled structures, {score:.3g}, is one of the "
        "{n_picks} largest {of_what}.",
        state_bytes=lambda n, d, n_train, _: 64 * n + prior_bytes(d, n_train),
    )
)
