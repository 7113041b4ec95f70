"""Rows of features of which nearly all columns are empty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.sparse import csr_array, vstack

#: Sparse rows with at most so many columns in use become dense ones.
MOST_DENSE_COLUMNS = 8192


@dataclass(frozen=True, eq=False)
class SparseRows:
    """n rows of d columns, of which only the entries that are not zero are held.

    Attributes:
        matrix: (n, d) float32, columns sorted within a row.
    """

    matrix: csr_array

    def __len__(self) -> int:
        """Count the rows."""
        return int(self.matrix.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), int(self.matrix.shape[1])

    def __getitem__(self, rows: slice | np.ndarray) -> SparseRows:
        """Return some rows, by a slice, numbers or a mask."""
        return SparseRows(self.matrix[rows])

    def __iter__(self) -> Iterator[SparseRows]:
        """Yield the rows one by one, each as a set of one."""
        return (self[i : i + 1] for i in range(len(self)))

    def copy(self) -> SparseRows:
        """Return rows of their own."""
        return SparseRows(self.matrix.copy())

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        matrix = self.matrix
        return int(matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes)

    def scale(self, factors: Float64[np.ndarray, " n"]) -> SparseRows:
        """Return the rows, each multiplied by its factor; the product is rounded once."""
        matrix = self.matrix
        values = matrix.data * np.repeat(factors, np.diff(matrix.indptr))
        parts = (values.astype(np.float32), matrix.indices, matrix.indptr)
        return SparseRows(csr_array(parts, shape=matrix.shape))

    def is_finite(self) -> Bool[np.ndarray, " n"]:
        """Tell which rows hold finite numbers only."""
        finite = np.isfinite(self.matrix.data)
        if finite.all():
            return np.ones(len(self), dtype=bool)
        row_of_entry = np.repeat(np.arange(len(self)), np.diff(self.matrix.indptr))
        n_broken = np.bincount(row_of_entry[~finite], minlength=len(self))
        return np.asarray(n_broken == 0)

    def used_columns(self) -> Int64[np.ndarray, " u"]:
        """Return the columns in which some row has an entry, sorted."""
        used = np.zeros(self.shape[1], dtype=bool)
        used[self.matrix.indices] = True
        return np.flatnonzero(used).astype(np.int64)

    def to_dense(self, columns: Int64[np.ndarray, " u"]) -> Float32[np.ndarray, "n u"]:
        """Return the rows with these columns, sorted, among which must be all that are used."""
        dense = np.zeros((len(self), len(columns)), dtype=np.float32)
        row_of_entry = np.repeat(np.arange(len(self)), np.diff(self.matrix.indptr))
        dense[row_of_entry, np.searchsorted(columns, self.matrix.indices)] = self.matrix.data
        return dense


def join_sparse(parts: Sequence[SparseRows], width: int) -> SparseRows:
    """Join rows of the same width below one another; no parts make no rows."""
    if not parts:
        return SparseRows(csr_array((0, width), dtype=np.float32))
    return SparseRows(csr_array(vstack([part.matrix for part in parts], format="csr")))
