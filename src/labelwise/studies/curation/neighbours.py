"""Nearest neighbours within one set, and its single-linkage tree, block by block.

Time is O(n² d), memory O(n). Blocks above the diagonal are made once and used for rows and
columns alike, so that d(x, z) and d(z, x) are the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.kernels.base import Kernel, chunks
from labelwise.selection.rules.base import ROUNDING

_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class SpanningTree:
    """The n − 1 shortest links that connect a set: all of single-linkage clustering.

    Attributes:
        links: (n − 1, 2) positions of the two ends.
        distance: (n − 1,) kernel distances d, dimensionless, ascending.
    """

    links: Int64[np.ndarray, "n_links 2"]
    distance: Float64[np.ndarray, " n_links"]

    def components(self, distance: float) -> Int64[np.ndarray, " n"]:
        """Return the connected components of the graph of all pairs with d <= ``distance``.

        Args:
            distance: Kernel distance, dimensionless, >= 0.

        Returns:
            (n,) component of each structure, numbered from 0 in order of first appearance.
        """
        n = len(self.links) + 1
        union = _Union(n)
        for a, b in self.links[self.distance <= distance].tolist():
            union.join(a, b)
        return renumber(np.array([union.find(i) for i in range(n)], dtype=np.int64))


def find_nearest_others(
    kernel: Kernel,
    *,
    groups: Sequence[str] | None = None,
    block_size: int = _BLOCK,
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Find the nearest other structure of each structure of a set.

    Args:
        kernel: The set's kernel, (n,) structures.
        groups: Group of each structure, (n,): look in other groups only; None looks at all.
        block_size: Structures a block.

    Returns:
        Its position, (n,), the first of equals; and the kernel distance d to it, (n,);
        -1 and infinity where there is no other.

    Raises:
        SelectionError: A kernel value is not finite.
    """
    own = torch.arange(len(kernel))
    if groups is not None:
        own = torch.from_numpy(np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1])
    sq_dist, nearest = _nearest_foreign(kernel, own, block_size)
    return nearest.numpy(), sq_dist.sqrt().numpy()


def single_linkage(kernel: Kernel, *, block_size: int = _BLOCK) -> SpanningTree:
    """Return the minimum spanning tree of the kernel distances of a set.

    Every round finds the shortest link that leaves each component and joins along them, so
    that there are at most log2(n) rounds of one pass over all pairs.

    Args:
        kernel: The set's kernel, (n,) structures, n >= 1.
        block_size: Structures a block.

    Raises:
        ArgumentError: The set is empty.
        SelectionError: A kernel value is not finite.

    Source: Borůvka (1926); Gower and Ross, J. R. Stat. Soc. C 18 (1969) 54, that its
    subtrees are the single-linkage clusters.
    """
    n = len(kernel)
    if n == 0:
        raise ArgumentError("the set is empty: single linkage needs at least one structure")
    union = _Union(n)
    label = torch.arange(n)
    found: list[tuple[float, int, int]] = []
    while len(found) < n - 1:
        sq_dist, nearest = _nearest_foreign(kernel, label, block_size)
        for d2, a, b in _shortest_of_each(label.numpy(), sq_dist.numpy(), nearest.numpy()):
            if union.join(a, b):
                found.append((d2, a, b))
        label = torch.tensor([union.find(i) for i in range(n)])
    found.sort()
    links = np.array([link[1:] for link in found], dtype=np.int64).reshape(-1, 2)
    return SpanningTree(links, np.sqrt(np.array([link[0] for link in found], dtype=np.float64)))


def renumber(labels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Number labels from 0 in order of first appearance, (n,)."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbered: np.ndarray = rank[inverse]
    return numbered


def merge_labels(
    first: Int64[np.ndarray, " n"], second: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Return the finest partition in which all of either's classes stay together.

    Args:
        first: (n,) class of each structure.
        second: (n,) likewise.

    Returns:
        (n,) numbered from 0 in order of first appearance.
    """
    n = len(first)
    union = _Union(n)
    for labels in (renumber(first), renumber(second)):
        start: dict[int, int] = {}
        for i, label in enumerate(labels.tolist()):
            union.join(i, start.setdefault(label, i))
    return renumber(np.array([union.find(i) for i in range(n)], dtype=np.int64))


class _Union:
    """Disjoint sets of 0..n-1."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def find(self, i: int) -> int:
        """Return the set's name, halving the path to it."""
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(self, a: int, b: int) -> bool:
        """Join two sets; tell whether they were apart. The lower name stays."""
        a, b = self.find(a), self.find(b)
        self._parent[max(a, b)] = min(a, b)
        return a != b


def _nearest_foreign(
    kernel: Kernel, label: Int[Tensor, " n"], block_size: int
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Return d² to the nearest structure of another label, and its position; inf and -1."""
    diagonal = kernel.diagonal64().cpu()
    best = torch.full_like(diagonal, torch.inf)
    nearest = torch.full_like(label, -1)
    for rows in chunks(len(kernel), block_size):
        for cols in chunks(len(kernel), block_size):
            if cols.start < rows.start:
                continue
            sq_dist = _sq_dist(kernel, diagonal, rows, cols)
            sq_dist.masked_fill_(label[rows, None] == label[None, cols], torch.inf)
            _lower(best, nearest, rows, sq_dist, cols.start)
            if cols.start > rows.start:
                _lower(best, nearest, cols, sq_dist.T, rows.start)
    return best, nearest


def _sq_dist(
    kernel: Kernel, diagonal: Float[Tensor, " n"], rows: slice, cols: slice
) -> Float[Tensor, "r c"]:
    """Return d² of a block, with values below rounding as zero."""
    own = diagonal[rows, None] + diagonal[None, cols]
    sq_dist = own - 2.0 * kernel.block64(rows, kernel, cols).cpu()
    if rows == cols:
        sq_dist = torch.minimum(sq_dist, sq_dist.T.clone())
    return sq_dist.masked_fill_(sq_dist <= ROUNDING * own, 0.0)


def _lower(
    best: Float[Tensor, " n"],
    nearest: Int[Tensor, " n"],
    rows: slice,
    sq_dist: Float[Tensor, "r c"],
    start: int,
) -> None:
    """Lower the bests of some rows to the least of a block that begins at ``start``."""
    least, first = sq_dist.min(dim=1)
    moves = least < best[rows]
    best[rows] = torch.where(moves, least, best[rows])
    nearest[rows] = torch.where(moves, first + start, nearest[rows])


def _shortest_of_each(
    label: np.ndarray, sq_dist: np.ndarray, nearest: np.ndarray
) -> list[tuple[float, int, int]]:
    """Return the shortest link out of each component, shortest first, ties by position."""
    n = len(label)
    low, high = np.minimum(np.arange(n), nearest), np.maximum(np.arange(n), nearest)
    order = np.lexsort((high, low, sq_dist, label))
    _, first = np.unique(label[order], return_index=True)
    chosen = order[first]
    rows = zip(sq_dist[chosen].tolist(), low[chosen].tolist(), high[chosen].tolist(), strict=True)
    return sorted(rows)
