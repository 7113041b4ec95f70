"""Structures that the rest of their set does not explain, and labels that do not fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float, Float64
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel, chunks
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules.base import (
    DEFAULT_REGULARISATION,
    ROUNDING,
    check_regularisation,
    first_max,
    positive_factor,
)
from labelwise.structures.atom_energies import count_elements, deviate_from_others
from labelwise.studies.curation.herding import second_moment

#: Columns at most that stand for a kernel without features.
MAX_RANK = 1024


def leave_one_out_variance(
    kernel: Kernel,
    *,
    regularisation: float = DEFAULT_REGULARISATION,
    max_rank: int = MAX_RANK,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> Float64[np.ndarray, " n"]:
    """Return the posterior variance of each structure given all the others.

    With features Φ and A = ΦᵀΦ + λI, leaving x out takes φφᵀ from A, and by Sherman and
    Morrison

        σ²(x | others) = λ φᵀ(A − φφᵀ)⁻¹φ = λ s / (1 − s),   s = φᵀA⁻¹φ,

    so that one d × d factor serves all. For n < d the same s is 1 − λ [(ΦΦᵀ + λI)⁻¹]_xx,
    whose matrix is smaller than Φ. A kernel without features is replaced by at most
    ``max_rank`` columns of its pivoted Cholesky factor, with what these leave of k(x, x)
    added to the variance: exact where the rank suffices, else an approximation.

    Args:
        kernel: The set's kernel, (n,) structures, dimensionless.
        regularisation: λ, in units of the kernel, > 0.
        max_rank: Columns that stand for a kernel without features, >= 1.
        chunk_size: Structures a block; no effect but rounding.

    Returns:
        (n,) float64, dimensionless, from 0 to k(x, x).

    Raises:
        SelectionError: λ is out of range or too small for float64, or a kernel value is not
            finite.
    """
    check_regularisation(regularisation)
    if isinstance(kernel, LinearKernel):
        rows, rest = kernel, torch.zeros(len(kernel), dtype=torch.float64)
    else:
        factor, rest = _pivoted_factor(kernel, max_rank, chunk_size)
        rows = LinearKernel(factor, normalise="none")
    n, d = rows.features.shape
    if n < d:
        complement = _complement_from_gram(rows, regularisation)
    else:
        complement = _complement_from_moment(rows, regularisation, chunk_size)
    variance = regularisation * (1.0 - complement) / complement
    found: np.ndarray = (variance.cpu() + rest.cpu()).clamp_min_(0.0).numpy()
    return found


def composition_deviation(
    structures: Sequence[Atoms],
    energies: Float64[np.ndarray, " n"],
    *,
    threshold: float,
) -> Float64[np.ndarray, " n"]:
    """Return how far each energy is from what the compositions of the others let expect.

    See ``deviate_from_others`` for the fit, which one wrong label does not bend.

    Args:
        structures: (n,) structures.
        energies: (n,) total energies, eV; NaN where there is none.
        threshold: Robust standard deviations, > 0.

    Returns:
        (n,) float64, eV/atom; NaN where there is no energy, or where the other compositions
        do not determine what to expect.
    """
    elements = sorted({int(z) for atoms in structures for z in atoms.numbers})
    counts = count_elements([atoms.numbers for atoms in structures], elements)
    sizes = counts.sum(axis=1)
    return deviate_from_others(counts / sizes[:, None], energies / sizes, threshold=threshold)


def _complement_from_moment(
    rows: LinearKernel, regularisation: float, chunk_size: int
) -> Float[Tensor, " n"]:
    """Return 1 − s, (n,), through the d × d matrix A.

    1 − s cannot be below λ / (k(x, x) + λ), its value with nobody else, which cancellation
    is kept from undercutting.
    """
    lower = positive_factor(second_moment(rows, chunk_size), regularisation)
    parts = []
    for part in chunks(len(rows), chunk_size):
        phi = rows.features[part].to(torch.float64)
        white = torch.linalg.solve_triangular(lower, phi.T, upper=False)
        least = regularisation / (phi.square().sum(dim=1) + regularisation)
        parts.append(torch.maximum(1.0 - white.square().sum(dim=0), least))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def _complement_from_gram(rows: LinearKernel, regularisation: float) -> Float[Tensor, " n"]:
    """Return 1 − s = λ [(ΦΦᵀ + λI)⁻¹]_xx, (n,), where n < d."""
    lower = positive_factor(rows.block64(slice(None), rows, slice(None)), regularisation)
    diagonal: Tensor = torch.cholesky_inverse(lower).diagonal()
    return regularisation * diagonal


def _pivoted_factor(
    kernel: Kernel, max_rank: int, chunk_size: int
) -> tuple[Float[Tensor, "n r"], Float[Tensor, " n"]]:
    """Return F with FFᵀ ≈ K, (n, r), and what is left of the diagonal, (n,), both float64."""
    if max_rank < 1:
        raise ArgumentError(f"max_rank is {max_rank}; it must be at least 1")
    left = kernel.diagonal64()
    floor = ROUNDING * float(left.max())
    factor = left.new_zeros((len(kernel), min(max_rank, len(kernel))))
    n_columns = 0
    while n_columns < factor.shape[1] and float(left.max()) > floor:
        pivot = first_max(left)
        z = slice(pivot, pivot + 1)
        values = [kernel.block64(p, kernel, z)[:, 0] for p in chunks(len(kernel), chunk_size)]
        known = factor[:, :n_columns]
        column = (torch.cat(values) - known @ known[pivot]) / left[pivot].sqrt()
        factor[:, n_columns] = column
        left = (left - column.square()).clamp_min_(0.0)
        left[pivot] = 0.0
        n_columns += 1
    return factor[:, : max(n_columns, 1)], left
