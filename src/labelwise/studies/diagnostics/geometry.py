"""What a kernel tells apart: numbers of a kernel matrix, families and places along a path.

All functions take a small matrix K of kernel values, (n, n) float64, symmetric, positive
semi-definite and dimensionless, or the kernel distances ``distance`` of all pairs, (n, n),
d(x, z) = √(k(x, x) + k(z, z) − 2k(x, z)), and ``family``, (n,) integers 0..c−1 that say which
structures belong together, each of them used. They check nothing but what ``measure_geometry``
says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from labelwise.errors import ArgumentError
from labelwise.finetuning.metrics import spearman

Matrix = Float64[np.ndarray, "n n"]
Families = Int64[np.ndarray, " n"]

#: Parts of k(x, x) below which a distance or a spectrum is the rounding of zero.
_ROUNDING = 1e-13
#: Distances that differ by less are equally near.
_TIE = 1e-9


@dataclass(frozen=True)
class FamilyGeometry:
    """One family under one kernel; NaN is what such a family does not have.

    Attributes:
        name: What the family is called.
        n_structures: Its structures in the matrix.
        within: Mean similarity of its pairs, dimensionless.
        between: Mean similarity to the structures of other families.
        neighbour_accuracy: Part of its structures whose nearest other structure is of it.
        silhouette: Mean silhouette of its structures.
        path_correlation: See ``path_correlations``.
        spread: Mean kernel distance of its pairs, divided by that between all families.
        effective_rank: Of its part of the matrix.
    """

    name: str
    n_structures: int
    within: float
    between: float
    neighbour_accuracy: float
    silhouette: float
    path_correlation: float
    spread: float
    effective_rank: float


@dataclass(frozen=True)
class KernelGeometry:
    """What a kernel tells apart; NaN is what the families or the order do not allow.

    Attributes:
        within: Mean similarity of two structures of one family; the mean over families.
        between: Mean similarity of structures of two families; the mean over pairs of families.
        alignment: Centred alignment with the matrix of same family, −1 to 1.
        neighbour_accuracy: Part of the structures whose nearest other one is of their family.
        silhouette: Mean over structures, −1 to 1.
        path_correlation: Mean over families, −1 to 1.
        spread: Mean kernel distance within families, divided by that between families.
        effective_rank: Of the centred matrix, 0 to n − 1.
        effective_rank_within: The same for each family alone; the mean over families.
        families: The families, in order of their numbers.
    """

    within: float
    between: float
    alignment: float
    neighbour_accuracy: float
    silhouette: float
    path_correlation: float
    spread: float
    effective_rank: float
    effective_rank_within: float
    families: tuple[FamilyGeometry, ...]

    @property
    def gap(self) -> float:
        """Similarity within families less that between them."""
        return self.within - self.between

    @property
    def ratio(self) -> float:
        """Similarity within families over that between them; NaN unless the latter is > 0."""
        return self.within / self.between if self.between > 0 else float("nan")


def measure_geometry(
    K: Float64[np.ndarray, "r c"],
    family: Families,
    *,
    order: Float64[np.ndarray, " m"] | None = None,
    names: Sequence[str] | None = None,
) -> KernelGeometry:
    """Compute all numbers of a kernel matrix.

    Args:
        K: Kernel values, (n, n), dimensionless.
        family: 0..c−1, (n,), each of them used.
        order: Place along the path, (n,), in any unit; compared within families only. None
            leaves the path's numbers NaN.
        names: Of the c families; by default their numbers.

    Returns:
        The numbers; those that compare families are NaN if there is one only.

    Raises:
        ArgumentError: Shapes that do not fit, a matrix that is not finite or not symmetric, or
            families that are not 0..c−1.
    """
    _check(K, family, order)
    n_families = int(family.max()) + 1
    labels = [str(i) for i in range(n_families)] if names is None else list(names)
    distance = kernel_distances(K)
    similar, apart = mean_by_family(K, family), mean_by_family(distance, family)
    others = ~np.eye(n_families, dtype=bool)
    scale = _mean(apart[others])
    spread = np.diag(apart) / scale if scale > 0 else np.full(n_families, np.nan)
    hits, silhouette = neighbour_hits(distance, family), silhouettes(distance, family)
    missing = np.full(n_families, np.nan)
    path = missing if order is None else path_correlations(distance, family, order)
    members = [np.flatnonzero(family == i) for i in range(n_families)]
    ranks = [effective_rank(K[np.ix_(own, own)]) if len(own) > 1 else np.nan for own in members]
    families = tuple(
        FamilyGeometry(
            name=labels[i],
            n_structures=len(own),
            within=float(similar[i, i]),
            between=_mean(K[np.ix_(own, np.flatnonzero(family != i))]),
            neighbour_accuracy=_mean(hits[own]),
            silhouette=_mean(silhouette[own]),
            path_correlation=float(path[i]),
            spread=float(spread[i]),
            effective_rank=float(ranks[i]),
        )
        for i, own in enumerate(members)
    )
    return KernelGeometry(
        within=_mean(np.diag(similar)),
        between=_mean(similar[others]),
        alignment=family_alignment(K, family),
        neighbour_accuracy=_mean(hits),
        silhouette=_mean(silhouette),
        path_correlation=_mean(path),
        spread=_mean(spread),
        effective_rank=effective_rank(K),
        effective_rank_within=_mean(np.array(ranks)),
        families=families,
    )


def kernel_distances(K: Matrix) -> Matrix:
    """Return d(x, z) of all pairs, (n, n); rounding of zero is zero."""
    norms = np.diag(K)
    sums = norms[:, None] + norms[None, :]
    squares = sums - 2.0 * K
    squares[squares <= _ROUNDING * sums] = 0.0
    np.fill_diagonal(squares, 0.0)
    return np.sqrt(squares)


def mean_by_family(values: Matrix, family: Families) -> Float64[np.ndarray, "c c"]:
    """Return the mean over pairs of structures of two families, a structure with itself left out.

    Args:
        values: Similarity or distance of all pairs, (n, n).
        family: 0..c−1, (n,).

    Returns:
        (c, c) in the unit of the values; NaN on the diagonal for families of one structure.
    """
    member = np.eye(int(family.max()) + 1)[family]
    sizes = member.sum(axis=0)
    sums = member.T @ values @ member - np.diag(np.diag(values) @ member)
    counts = np.outer(sizes, sizes) - np.diag(sizes)
    return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)


def centred_alignment(K: Matrix, L: Matrix) -> float:
    """Return how alike two kernels of the same structures are, whatever their scale and offset.

    ⟨HKH, HLH⟩ / (‖HKH‖ ‖HLH‖) in the Frobenius product, with H = 1 − 11ᵀ/n; also known as
    centred kernel alignment, CKA.

    Returns:
        0 to 1 for positive semi-definite kernels; NaN if one of them tells nothing apart.

    Source: Cortes, Mohri and Rostamizadeh, JMLR 13 (2012) 795, definition 4; Kornblith et al.,
    ICML 2019.
    """
    first, second = _centre(K), _centre(L)
    norms = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    for norm, whole in zip(norms, (K, L), strict=True):
        if norm <= _ROUNDING * np.linalg.norm(whole):
            return float("nan")
    return float((first * second).sum() / (norms[0] * norms[1]))


def family_alignment(K: Matrix, family: Families) -> float:
    """Return the centred alignment of K with the matrix that is 1 within families, else 0.

    Returns:
        1 if the kernel tells nothing apart but families; NaN if there is one family only.
    """
    same = family[:, None] == family[None, :]
    return centred_alignment(K, same.astype(np.float64))


def neighbour_hits(distance: Matrix, family: Families) -> Float64[np.ndarray, " n"]:
    """Return whether the nearest other structure is of the same family, leaving one out.

    Returns:
        (n,), 0 or 1; where several are equally near, the part of them that is of the family.
        NaN if there is one family only.
    """
    if family.max() == 0:
        return np.full(len(family), np.nan)
    others = distance + np.diag(np.full(len(family), np.inf))
    nearest = others <= others.min(axis=1, keepdims=True) * (1.0 + _TIE)
    same = family[:, None] == family[None, :]
    return np.asarray((nearest & same).sum(axis=1) / nearest.sum(axis=1))


def silhouettes(distance: Matrix, family: Families) -> Float64[np.ndarray, " n"]:
    """Return (b − a) / max(a, b), with a the mean distance to the own family, b to the nearest.

    Returns:
        (n,), −1 to 1; 0 in families of one structure and where a = b = 0. NaN if there is one
        family only.

    Source: Rousseeuw, J. Comput. Appl. Math. 20 (1987) 53.
    """
    if family.max() == 0:
        return np.full(len(family), np.nan)
    member = np.eye(int(family.max()) + 1)[family]
    sizes = member.sum(axis=0)
    sums = distance @ member
    own = sizes[family]
    inside = (sums * member).sum(axis=1) / np.maximum(own - 1.0, 1.0)
    outside = np.where(member > 0, np.inf, sums / sizes).min(axis=1)
    larger = np.maximum(inside, outside)
    useful = (own > 1) & (larger > 0)
    gained = np.where(useful, outside - inside, 0.0)
    return np.asarray(gained / np.where(useful, larger, 1.0))


def path_correlations(
    distance: Matrix, family: Families, order: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " c"]:
    """Return how the kernel distance follows the distance along the path within each family.

    Spearman correlation of d(x_i, x_j) and |order_i − order_j| over all pairs of a family.

    Args:
        distance: (n, n).
        family: (n,).
        order: Place along the path, (n,), in any unit.

    Returns:
        (c,), −1 to 1; 0 where all distances of a family are equal, for such a kernel tells
        nothing of the path; NaN for families with fewer than two different path distances.
    """
    found = np.full(int(family.max()) + 1, np.nan)
    for i in range(len(found)):
        own = np.flatnonzero(family == i)
        first, second = np.triu_indices(len(own), k=1)
        along = np.abs(order[own][first] - order[own][second])
        if len(along) < 2 or np.ptp(along) == 0:
            continue
        correlation = spearman(distance[own[first], own[second]], along)
        found[i] = 0.0 if np.isnan(correlation) else correlation
    return found


def effective_rank(K: Matrix) -> float:
    """Return in how many directions the structures differ: exp of the spectrum's entropy.

    The spectrum is that of the centred matrix, divided by its sum.

    Returns:
        0 if all structures coincide, else between 1 and n − 1.

    Source: Roy and Vetterli, EUSIPCO 2007.
    """
    spectrum = np.clip(np.linalg.eigvalsh(_centre(K)), 0.0, None)
    total = float(spectrum.sum())
    if total <= _ROUNDING * len(K) * float(np.trace(K)):
        return 0.0
    parts = spectrum[spectrum > 0] / total
    return float(np.exp(-(parts * np.log(parts)).sum()))


def _centre(K: Matrix) -> Matrix:
    rows = K.mean(axis=0, keepdims=True)
    centred: Matrix = K - rows - rows.T + K.mean()
    return centred


def _mean(values: Float64[np.ndarray, "*shape"]) -> float:
    """Return the mean of what is known, NaN if nothing is."""
    known: Bool[np.ndarray, "*shape"] = ~np.isnan(values)
    return float(values[known].mean()) if known.any() else float("nan")


def _check(
    K: Float64[np.ndarray, "r c"], family: Families, order: Float64[np.ndarray, " m"] | None
) -> None:
    n = len(family)
    if n == 0 or K.shape != (n, n):
        raise ArgumentError(
            f"K has shape {K.shape} and family {family.shape}; allowed are (n, n) and (n,), n >= 1"
        )
    if not np.isfinite(K).all() or not np.allclose(K, K.T, rtol=1e-6, atol=1e-9):
        raise ArgumentError("K is not finite or not symmetric; give the kernel of one set")
    if not np.array_equal(np.unique(family), np.arange(family.max() + 1)):
        raise ArgumentError("family must number the families 0..c−1, without a gap")
    if order is not None and (order.shape != (n,) or not np.isfinite(order).all()):
        raise ArgumentError(f"order has shape {order.shape}; allowed are {n} finite numbers")
