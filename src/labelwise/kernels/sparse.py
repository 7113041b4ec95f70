"""The linear kernel of sparse rows whose entries come in blocks of columns.

A structure of five elements has an entry in fifteen pairs of elements, out of thousands that a
pool may hold. Here each block of columns holds the rows of the structures that have it, dense,
and k(x, z) is the sum over the blocks that both have. Memory is that of the entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.features.representations.rows import SparseRows
from labelwise.kernels.base import Kernel, Rows, chunks, to_positions

_ROWS_AT_ONCE = 2048


@dataclass(frozen=True, eq=False)
class _Block:
    """Some columns: the structures that have entries in them, and the entries."""

    members: Int64[np.ndarray, " p"]
    values: Float32[np.ndarray, "p b"]


class SparseLinearKernel(Kernel):
    """k(x, x') = φ(x)ᵀφ(x') on sparse rows, which are taken as they are.

    Values are those of a ``LinearKernel`` on the same rows in float64.

    Args:
        rows: φ, (n, d) float32, finite, dimensionless. Not modified.
        column_block: Columns a block, >= 1.
    """

    def __init__(self, rows: SparseRows, *, column_block: int) -> None:
        self._n = len(rows)
        self._width = rows.shape[1]
        self._column_block = column_block
        self._blocks = dict(_cut(rows, column_block))
        self._diagonal = np.zeros(self._n)
        for block in self._blocks.values():
            self._diagonal[block.members] += _square_sums(block.values)

    def __len__(self) -> int:
        """Count the structures."""
        return self._n

    def __repr__(self) -> str:
        return f"SparseLinearKernel(n={self._n}, blocks={len(self._blocks)}, d={self._width})"

    def diagonal(self) -> Float[Tensor, " n"]:
        """Return ‖φ(x)‖² as a fresh (n,) float64 tensor."""
        return torch.from_numpy(self._diagonal.copy())

    def block(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return φ(x)ᵀφ(z), (r, c), multiplied and summed in float64.

        Raises:
            ArgumentError: ``other`` is of another kind or layout.
        """
        partner = self._checked_partner(other)
        mine, theirs = to_positions(rows, len(self)), to_positions(cols, len(partner))
        values = np.zeros((len(mine), len(theirs)))
        for place, right in partner._blocks.items():
            left = self._blocks.get(place)
            if left is None:
                continue
            out_cols, right_members = _find(right.members, theirs)
            if len(out_cols) == 0:
                continue
            out_rows, left_members = _find(left.members, mine)
            factor = right.values[right_members].astype(np.float64).T
            for start in range(0, len(out_rows), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                product = left.values[left_members[part]].astype(np.float64) @ factor
                values[np.ix_(out_rows[part], out_cols)] += product
        return torch.from_numpy(values)

    def take(self, rows: Rows) -> SparseLinearKernel:
        """Return the kernel of a part of the structures, (k,), with entries copied."""
        chosen = to_positions(rows, len(self))
        kernel = SparseLinearKernel.__new__(SparseLinearKernel)
        kernel._n, kernel._width = len(chosen), self._width
        kernel._column_block = self._column_block
        kernel._diagonal = self._diagonal[chosen]
        kernel._blocks = {}
        for place, block in self._blocks.items():
            members, found = _find(block.members, chosen)
            if len(members):
                kernel._blocks[place] = _Block(members, block.values[found])
        return kernel

    def _checked_partner(self, other: Kernel) -> SparseLinearKernel:
        if (
            not isinstance(other, SparseLinearKernel)
            or other._width != self._width
            or other._column_block != self._column_block
        ):
            raise ArgumentError(
                f"{self!r} cannot be paired with {other!r}: make both from the same representation"
            )
        return other


def _cut(rows: SparseRows, column_block: int) -> list[tuple[int, _Block]]:
    """Cut rows into blocks of columns: each block's number and what it holds."""
    starts, stops, run_rows, run_blocks = _runs(rows, column_block)
    order = np.argsort(run_blocks, kind="stable")
    places, firsts = np.unique(run_blocks[order], return_index=True)
    ends = np.append(firsts, len(order))[1:].tolist()
    found = []
    for place, first, end in zip(places.tolist(), firsts.tolist(), ends, strict=True):
        runs = order[first:end]
        lengths = stops[runs] - starts[runs]
        entries = np.repeat(stops[runs] - np.cumsum(lengths), lengths) + np.arange(lengths.sum())
        columns = rows.matrix.indices[entries] - place * column_block
        values = np.zeros((len(runs), int(columns.max()) + 1), dtype=np.float32)
        values[np.repeat(np.arange(len(runs)), lengths), columns] = rows.matrix.data[entries]
        found.append((place, _Block(run_rows[runs], values)))
    return found


def _runs(rows: SparseRows, column_block: int) -> tuple[Int64[np.ndarray, " k"], ...]:
    """Find the entries of one row and one block, which follow one another.

    Returns:
        Of each run its first entry, the one behind its last, its row and its block.
    """
    parts = [np.zeros((4, 0), dtype=np.int64)]
    indptr = rows.matrix.indptr.astype(np.int64)
    for some in chunks(len(rows), _ROWS_AT_ONCE):
        first, last = indptr[some.start], indptr[some.stop]
        blocks = rows.matrix.indices[first:last] // column_block
        numbers = np.repeat(
            np.arange(some.start, some.stop), np.diff(indptr[some.start : some.stop + 1])
        )
        is_first = np.ones(len(blocks), dtype=bool)
        is_first[1:] = (np.diff(blocks) != 0) | (np.diff(numbers) != 0)
        starts = np.flatnonzero(is_first)
        stops = np.append(starts, len(blocks))[1:]
        parts.append(np.stack((first + starts, first + stops, numbers[starts], blocks[starts])))
    return tuple(np.concatenate(parts, axis=1))


def _find(
    members: Int64[np.ndarray, " p"], wanted: Int64[np.ndarray, " k"]
) -> tuple[Int64[np.ndarray, " f"], Int64[np.ndarray, " f"]]:
    """Return which of the wanted are among the members, sorted, and where."""
    where = np.searchsorted(members, wanted)
    where[where == len(members)] = 0
    found = np.flatnonzero(members[where] == wanted)
    return found, where[found]


def _square_sums(values: Float32[np.ndarray, "p b"]) -> Float64[np.ndarray, " p"]:
    sums: np.ndarray = np.einsum("pb,pb->p", values, values, dtype=np.float64)
    return sums
