"""Kernels as diagonals, columns and blocks, made on demand.

A kernel here is *a set of structures under one representation*: it knows how many
structures there are and what k(x, x') is between them and those of another set. No
selection rule asks for more than a diagonal, a few columns or a block of rows, so
nothing of size n × n is ever held.

``Kernel`` is the base class: a kernel defines how many structures it holds, their diagonal and
blocks, and gets the rest. Those with explicit features are in ``linear`` (rows in memory) and
``stored`` (rows on disk), the others are Tanimoto on bit vectors (``tanimoto``) and sparse rows
(``sparse``); every rule takes any of them.

Kernel values are dimensionless throughout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from labelwise.errors import SelectionError
from labelwise.features.row_parts import chunks as chunks

Rows: TypeAlias = Int[Tensor, " _"] | slice

DEFAULT_CHUNK_SIZE = 4096


class Kernel(ABC):
    """A set of n structures and their similarity k(x, x') to others of its kind.

    A kernel of your own defines ``__len__``, ``diagonal`` and ``block``; the other methods have
    defaults that are right for every kernel, and may be overridden to be faster. k must be
    symmetric and positive semi-definite, and the values finite. Tensors that are returned
    belong to the caller.

    Example:
        >>> import torch
        >>> from labelwise import Kernel, select_batch
        >>> class Rbf(Kernel):
        ...     def __init__(self, points):
        ...         self.points = points
        ...     def __len__(self):
        ...         return len(self.points)
        ...     def diagonal(self):
        ...         return torch.ones(len(self.points), dtype=torch.float64)
        ...     def block(self, rows, other, cols):
        ...         gap = self.points[rows][:, None] - other.points[cols]
        ...         return torch.exp(-gap.square().sum(dim=2))
        >>> points = torch.arange(5, dtype=torch.float64)[:, None]
        >>> select_batch("k-center", Rbf(points), Rbf(points[:1]), 2).pool_idx.tolist()
        [4, 2]
    """

    @abstractmethod
    def __len__(self) -> int:
        """Count the structures."""

    @abstractmethod
    def diagonal(self) -> Float[Tensor, " n"]:
        """Return k(x, x) of every structure as a fresh (n,) tensor."""

    @abstractmethod
    def block(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return k(x, z) for x in ``self[rows]`` and z in ``other[cols]``.

        Raises:
            ArgumentError: The kernels do not belong together.
        """

    @property
    def in_memory(self) -> bool:
        """Whether no value needs a row that has to be read from disk."""
        return True

    @property
    def products_per_value(self) -> int:
        """About how many multiplications one value takes."""
        return 1

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the values."""
        return self.diagonal().dtype

    @property
    def device(self) -> torch.device:
        """Device on which values come."""
        return self.diagonal().device

    @property
    def rounding(self) -> float:
        """Bound on |k̂(x, z) − k(x, z)| / sqrt(k(x, x) k(z, z)) for values of ``block``."""
        return float(8 * torch.finfo(self.dtype).eps)

    def chunks(self, chunk_size: int) -> list[slice]:
        """Cut 0..n into slices of at most ``chunk_size`` that are cheap to have at once."""
        return chunks(len(self), chunk_size)

    def take(self, rows: Rows) -> Kernel:
        """Return the kernel of a part of the structures, (k,), in that order."""
        n = len(self)
        idx = torch.arange(n, device=self.device)[rows] if isinstance(rows, slice) else rows
        return SubsetKernel(self, idx)

    def share_to_read(self, idx: Int[Tensor, " k"]) -> float:  # noqa: ARG002
        """Return the share of all rows, 0 to 1, to be read from disk to have those of ``idx``."""
        return 0.0

    def check_partner(self, other: Kernel) -> None:
        """Raise unless values between this set and another are possible.

        Raises:
            ArgumentError: The kernels do not belong together.
        """
        self.block(slice(0, 1), other, slice(0, 1))

    def block64(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return k(x, z) in float64, computed in float64 where the kernel has features.

        Raises:
            SelectionError: A value is not finite.
            ArgumentError: The kernels do not belong together.
        """
        return self.checked64(self.block(rows, other, cols))

    def diagonal64(self) -> Float[Tensor, " n"]:
        """Return k(x, x) as a float64 tensor that the caller may write to, (n,).

        Raises:
            SelectionError: A value is not finite or negative.
        """
        values = self.diagonal().to(torch.float64, copy=True)
        if bool((~torch.isfinite(values) | (values < 0)).any()):
            raise SelectionError(
                f"{type(self).__name__}.diagonal returned a value that is negative or not "
                "finite: k(x, x) must be finite and >= 0; mend the representation"
            )
        return values

    def checked64(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return values of ``block`` as float64.

        Raises:
            SelectionError: A value is not finite.
        """
        if not bool(torch.isfinite(values).all()):
            raise SelectionError(
                f"{type(self).__name__}.block returned a value that is not finite: "
                "a kernel must be finite for every pair; mend the representation"
            )
        return values.to(torch.float64)

    def mean_similarity(self, chunk_size: int = DEFAULT_CHUNK_SIZE) -> Float[Tensor, " n"]:
        """Return the mean of k(x, z) over all z of the same set, (n,) float64.

        O(n d) where there are features. Otherwise every pair is evaluated once, block by
        block: O(n²) time, O(n · chunk_size) memory.
        """
        parts = self.chunks(chunk_size)
        return torch.cat([self.block64(rows, self, slice(None)).mean(dim=1) for rows in parts])


class SubsetKernel(Kernel):
    """A part of the structures of any kernel, without copying it.

    Args:
        parent: The whole set, (n,).
        idx: Which of its structures, (k,) integers in 0..n-1.
    """

    def __init__(self, parent: Kernel, idx: Int[Tensor, " k"]) -> None:
        self.parent = parent
        self.idx = idx

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parent's values."""
        return self.parent.dtype

    @property
    def device(self) -> torch.device:
        """Device of the parent's values."""
        return self.parent.device

    @property
    def rounding(self) -> float:
        """See ``Kernel.rounding``."""
        return self.parent.rounding

    def __len__(self) -> int:
        """Count the structures."""
        return len(self.idx)

    def diagonal(self) -> Float[Tensor, " k"]:
        """Return k(x, x), (k,)."""
        return self.parent.diagonal()[self.idx]

    def block(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return k(x, z) from the parents, (r, c)."""
        return self.parent.block(self.idx[rows], *_parent_of(other, cols))

    def block64(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return k(x, z) from the parents in float64, (r, c)."""
        return self.parent.block64(self.idx[rows], *_parent_of(other, cols))


def _parent_of(kernel: Kernel, rows: Rows) -> tuple[Kernel, Rows]:
    """Return the whole of which a kernel is a part, and the structures in it."""
    if isinstance(kernel, SubsetKernel):
        return _parent_of(kernel.parent, kernel.idx[rows])
    return kernel, rows


def to_positions(rows: Rows, n: int) -> Int64[np.ndarray, " r"]:
    """Return the numbers, 0 to n - 1, of the structures that ``rows`` means, (r,) int64."""
    positions = np.arange(n, dtype=np.int64)
    chosen: np.ndarray = positions[rows if isinstance(rows, slice) else rows.cpu().numpy()]
    return chosen
