"""Kernel herding: the subset whose feature moments are those of the whole set.

What a linear model fitted to a set knows of it are the moments Φᵀ1, ΦᵀΦ and Φᵀy. The
kernel κ = 2k + k² has the features φ and φφᵀ, so the maximum mean discrepancy under it,

    MMD²(S) = ‖mean over S of ψ − mean over all of ψ‖²,   ψ(x)ᵀψ(z) = κ(x, z),

is the difference of means and second moments together. Each pick is the structure that
lowers it most, with all picks counting the same:

    argmax_x  (t + 1) μ(x) − Σ_{s in S} κ(x, s) − κ(x, x)/2,   μ(x) = mean over z of κ(x, z).

With features μ costs one d × d matrix, since the mean of k(x, z)² is φ(x)ᵀ(ΦᵀΦ/n)φ(x),
and a pick costs one kernel column, O(n d).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel, chunks
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules.base import (
    ProgressCallback,
    Selection,
    Ticker,
    check_chunk_size,
    check_n_select,
    first_max,
)


def select_herding(
    kernel: Kernel,
    n_select: int,
    *,
    exclude: Bool[np.ndarray, " n"] | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    progress: ProgressCallback | None = None,
) -> Selection:
    """Pick the structure that brings the subset's moments nearest to the set's, again and again.

    Args:
        kernel: The set's kernel, (n,) structures, dimensionless.
        n_select: Structures to pick, from 1 to the number that are not excluded.
        exclude: (n,) bool, structures that belong to the set but may not be picked.
        chunk_size: Structures a block; no effect on the picks but for rounding.
        progress: Called as ``progress(done, total)``, one unit a pick.

    Returns:
        pool_idx (n_select,) int64 in order of choice; score (n_select,), the MMD under
        2k + k² between the picks so far and the whole set, after each pick.

    Raises:
        SelectionError: n_select or chunk_size out of range, or a non-finite kernel value.

    Source: Chen, Welling and Smola, *Super-samples from kernel herding* (UAI 2010), in the
    form that picks among given points and minimises the MMD itself.
    """
    barred = torch.zeros(len(kernel), dtype=torch.bool)
    if exclude is not None:
        barred = torch.from_numpy(exclude)
    check_n_select(n_select, int((~barred).sum()))
    check_chunk_size(chunk_size)
    ticker = Ticker(progress, n_select)
    mean = moment_similarity(kernel, chunk_size)
    own = moment_kernel(kernel.diagonal64())
    whole = float(mean.mean())
    drawn = torch.zeros_like(mean)
    open_mean = mean.masked_fill(barred.to(mean.device), -torch.inf)
    within = towards = 0.0
    picks: list[int] = []
    scores: list[float] = []
    for n_picked in range(1, n_select + 1):
        gain = n_picked * open_mean - drawn - 0.5 * own
        pick = first_max(gain, 1e-12 * n_picked * float(own.max()))
        within += float(own[pick] + 2.0 * drawn[pick])
        towards += float(mean[pick])
        square = whole - 2.0 * towards / n_picked + within / n_picked**2
        picks.append(pick)
        scores.append(math.sqrt(max(square, 0.0)))
        drawn += moment_kernel(_column(kernel, pick, chunk_size))
        open_mean[pick] = -torch.inf
        ticker.advance()
    return Selection.from_lists(picks, scores)


def moment_kernel(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return κ = 2k + k² of kernel values, elementwise."""
    return values * (2.0 + values)


def moment_similarity(kernel: Kernel, chunk_size: int = DEFAULT_CHUNK_SIZE) -> Float[Tensor, " n"]:
    """Return the mean of κ(x, z) over all z of the same set, (n,) float64.

    O(n d²) where there are features with d <= n. Otherwise every pair is evaluated once,
    block by block: O(n²) time, O(n · chunk_size) memory.
    """
    return 2.0 * kernel.mean_similarity(chunk_size) + mean_square_similarity(kernel, chunk_size)


def mean_square_similarity(
    kernel: Kernel, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> Float[Tensor, " n"]:
    """Return the mean of k(x, z)² over all z of the same set, (n,) float64."""
    n = len(kernel)
    parts = chunks(n, chunk_size)
    if isinstance(kernel, LinearKernel) and kernel.features.shape[1] <= n:
        second = second_moment(kernel, chunk_size) / n
        rows = (kernel.features[part].to(torch.float64) for part in parts)
        return torch.cat([((row @ second) * row).sum(dim=1) for row in rows])
    small = max(1, min(chunk_size, 2**22 // max(n, 1)))
    return torch.cat(
        [
            kernel.block64(part, kernel, slice(None)).square().mean(dim=1)
            for part in chunks(n, small)
        ]
    )


def second_moment(
    kernel: LinearKernel, chunk_size: int = DEFAULT_CHUNK_SIZE
) -> Float[Tensor, "d d"]:
    """Return ΦᵀΦ in float64, (d, d)."""
    d = kernel.features.shape[1]
    total = torch.zeros((d, d), dtype=torch.float64, device=kernel.device)
    for part in chunks(len(kernel), chunk_size):
        rows = kernel.features[part].to(torch.float64)
        total += rows.T @ rows
    return total


def _column(kernel: Kernel, pick: int, chunk_size: int) -> Float[Tensor, " n"]:
    z = slice(pick, pick + 1)
    parts = chunks(len(kernel), chunk_size)
    return torch.cat([kernel.block64(part, kernel, z)[:, 0] for part in parts])
