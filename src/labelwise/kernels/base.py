"""Kernels as diagonals, columns and blocks, made on demand.

A kernel here is *a set of structures under one representation*: it knows how many
structures there are and what k(x, x') is between them and those of another set. No
selection rule asks for more than a diagonal, a few columns or a block of rows, so
nothing of size n × n is ever held.

A ``FeatureKernel`` has explicit features, which it gives some rows at a time: from memory
(``LinearKernel``) or from disk (``stored_kernel.StoredKernel``). A kernel without features
(Tanimoto on bit vectors, see ``tanimoto``, or sparse rows, see ``sparse_kernel``) only has
to offer the three methods of ``Kernel``; every rule takes it.

Kernel values are dimensionless throughout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from labelwise.errors import ArgumentError, SelectionError
from labelwise.features.row_parts import (
    checked_features,
    rounding_of_width,
    small_parts,
    squared_norms,
    unit_rows,
)
from labelwise.features.row_parts import chunks as chunks

Rows: TypeAlias = Int[Tensor, " _"] | slice

DEFAULT_CHUNK_SIZE = 4096
_PART_BYTES = 2**25


@runtime_checkable
class Kernel(Protocol):
    """A set of n structures and their similarity k(x, x') to others of its kind.

    k must be symmetric and positive semi-definite, and the values finite. Tensors
    that are returned belong to the caller.
    """

    def __len__(self) -> int:
        """Count the structures."""
        ...

    def diagonal(self) -> Float[Tensor, " n"]:
        """Return k(x, x) of every structure as a fresh (n,) tensor."""
        ...

    def block(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return k(x, z) for x in ``self[rows]`` and z in ``other[cols]``."""
        ...


class FeatureKernel(ABC):
    """k(x, x') = φ̃(x)ᵀφ̃(x') on explicit rows φ̃, wherever they are kept.

    ``block`` and the other methods hold a few pieces of the rows and the result, never all
    rows of a kernel that is not in memory.

    Attributes:
        normalise: How the rows were normalised, ``"cosine"`` or ``"none"``.
        column_bytes: How much the whole columns that a rule keeps may take, bytes; None
            leaves it to the rule.
    """

    normalise: str
    column_bytes: int | None = None

    @property
    @abstractmethod
    def width(self) -> int:
        """Length d of a row."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Precision of the rows."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device on which rows and products come."""

    @property
    @abstractmethod
    def in_memory(self) -> bool:
        """Whether no row has to be read from disk."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the structures."""

    @abstractmethod
    def rows(self, rows: Rows) -> Float[Tensor, "r d"]:
        """Return φ̃ of some structures, (r, d). Do not write to it: it may be a view."""

    @abstractmethod
    def pieces(self) -> list[slice]:
        """Cut 0..n into slices of which each is cheap to have at once; at least one."""

    @abstractmethod
    def parts(self, rows: Rows) -> list[tuple[Rows, Rows]]:
        """Cut ``rows`` into parts that can be held at once.

        Returns:
            Pairs: the places of a part within ``rows``, and its structures.
        """

    @abstractmethod
    def take(self, rows: Rows) -> LinearKernel:
        """Return the kernel of a part of the structures, (k,), with rows copied."""

    @abstractmethod
    def share_to_read(self, idx: Int[Tensor, " k"]) -> float:
        """Return the share of all rows, 0 to 1, to be read from disk to have those of ``idx``."""

    def chunks(self, chunk_size: int) -> list[slice]:
        """Cut 0..n into slices of at most ``chunk_size``, none across two pieces."""
        return [
            slice(piece.start + part.start, piece.start + part.stop)
            for piece in self.pieces()
            for part in chunks(piece.stop - piece.start, chunk_size)
        ]

    def diagonal(self) -> Float[Tensor, " n"]:
        """Return ‖φ̃(x)‖², (n,) float64, fresh."""
        return torch.cat([squared_norms(self.rows(piece)) for piece in self.pieces()])

    def rows_and_norms(self, part: slice) -> tuple[Float[Tensor, "r d"], Float[Tensor, " r"]]:
        """Return φ̃ and ‖φ̃‖² of consecutive structures, (r, d) and (r,) float64."""
        rows = self.rows(part)
        return rows, squared_norms(rows)

    def block(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return φ̃(x)ᵀφ̃(z) in the features' precision, (r, c).

        Raises:
            ArgumentError: ``other`` is of another kind, width, precision, device or
                normalisation.
        """
        return self._product(rows, other, cols, self.dtype)

    def block64(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return the same as ``block``, multiplied and summed in float64."""
        return self._product(rows, other, cols, torch.float64)

    def _product(
        self, rows: Rows, other: Kernel, cols: Rows, dtype: torch.dtype
    ) -> Float[Tensor, "r c"]:
        """Multiply part by part."""
        partner = self.checked_partner(other)
        left, right = self.parts(rows), partner.parts(cols)
        if len(left) == len(right) == 1:
            return self.rows(left[0][1]).to(dtype) @ partner.rows(right[0][1]).to(dtype).T
        shape = (_count(rows, len(self)), _count(cols, len(partner)))
        out = torch.empty(shape, dtype=dtype, device=self.device)
        same = partner.rows(right[0][1]).to(dtype) if len(right) == 1 else None
        for places, part in left:
            mine = self.rows(part).to(dtype)
            for onto, their_part in right:
                theirs = partner.rows(their_part).to(dtype) if same is None else same
                into: Rows | Tensor = places
                if isinstance(places, Tensor) and isinstance(onto, Tensor):
                    into = places.unsqueeze(1)
                out[into, onto] = mine @ theirs.T
        return out

    def checked_partner(self, other: Kernel) -> FeatureKernel:
        """Return ``other`` if its features can be multiplied with these.

        Raises:
            ArgumentError: It is of another kind, width, precision, device or
                normalisation.
        """
        if not isinstance(other, FeatureKernel):
            raise ArgumentError(
                f"a {type(self).__name__} cannot be paired with a {type(other).__name__}: "
                "make both from the same representation"
            )
        for name in ("width", "normalise", "dtype", "device"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ArgumentError(
                    f"two kernels differ in {name}: {mine} and {theirs}; "
                    "make both from the same representation, with the same settings"
                )
        return other


class LinearKernel(FeatureKernel):
    """k(x, x') = φ̃(x)ᵀφ̃(x') on explicit features.

    With ``normalise="cosine"``, φ̃ = φ / max(‖φ‖, 1e-12), so that k(x, x) = 1 except
    for a zero vector, where it is 0; with ``"none"``, φ̃ = φ. Norms are taken in
    float64. The kernel is *defined* by φ̃ as stored, in its own precision.

    Features on an Apple GPU (mps) are copied to the CPU: the rules decide in float64,
    which that device does not have.

    Args:
        features: φ, (n, d) float32 or float64, dimensionless, n >= 0, d >= 1. Not
            modified; with ``"none"`` and no change of device it is kept, not copied.
        normalise: ``"cosine"`` or ``"none"``.
        device: Where to hold the features; by default where they are.
        dtype: ``torch.float32`` or ``torch.float64``; by default that of ``features``.

    Raises:
        ArgumentError: Not two-dimensional, no columns, not float32 or float64, an
            unknown ``normalise``, a non-finite value (the message names the row), or
            values too large to be squared in this precision.
    """

    def __init__(
        self,
        features: Tensor | np.ndarray,
        *,
        normalise: str = "cosine",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if normalise not in ("cosine", "none"):
            raise ArgumentError(f"normalise={normalise!r}: allowed are 'cosine' and 'none'")
        tensor = checked_features(features, device, dtype)
        self.normalise = normalise
        self._features = unit_rows(tensor) if normalise == "cosine" else tensor

    @classmethod
    def from_rows(cls, rows: Float[Tensor, "n d"], normalise: str) -> LinearKernel:
        """Wrap rows that are checked and normalised already."""
        kernel = cls.__new__(cls)
        kernel.normalise = normalise
        kernel._features = rows
        return kernel

    @property
    def features(self) -> Float[Tensor, "n d"]:
        """φ̃, (n, d): the features after normalisation. Do not write to it."""
        return self._features

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the features are stored."""
        return self._features.dtype

    @property
    def device(self) -> torch.device:
        """Device on which the features are stored."""
        return self._features.device

    @property
    def width(self) -> int:
        """Length d of a row."""
        return self._features.shape[1]

    @property
    def in_memory(self) -> bool:
        """True: no row has to be read from disk."""
        return True

    def __len__(self) -> int:
        """Count the structures."""
        return self._features.shape[0]

    def __repr__(self) -> str:
        n, d = self._features.shape
        return f"LinearKernel(n={n}, d={d}, normalise={self.normalise!r}, dtype={self.dtype})"

    def rows(self, rows: Rows) -> Float[Tensor, "r d"]:
        """Return φ̃ of some structures, (r, d), a view for a slice. Do not write to it."""
        return _at(self._features, rows)

    def pieces(self) -> list[slice]:
        """Return one slice of all structures."""
        return [slice(0, len(self))]

    def parts(self, rows: Rows) -> list[tuple[Rows, Rows]]:
        """Cut ``rows`` into parts of at most 32 MiB.

        A matrix library copies the larger factor of a product as a whole, which for all rows
        of a pool would double what they take.
        """
        size = max(1, _PART_BYTES // (self.width * self.dtype.itemsize))
        n = _count(rows, len(self))
        if n <= size:
            return [(slice(None), rows)]
        if isinstance(rows, slice):
            positions = range(*rows.indices(len(self)))
            return [
                (p, slice(positions[p.start], positions[p.stop - 1] + 1, positions.step))
                for p in chunks(n, size)
            ]
        return [(part, rows[part]) for part in chunks(n, size)]

    def take(self, rows: Rows) -> LinearKernel:
        """Return the kernel of a part of the structures, (k,), with rows copied."""
        return LinearKernel.from_rows(_at(self._features, rows), self.normalise)

    def share_to_read(self, idx: Int[Tensor, " k"]) -> float:  # noqa: ARG002
        """Return 0: all rows are in memory."""
        return 0.0


class SubsetKernel:
    """A part of the structures of any kernel, without copying it.

    Args:
        parent: The whole set, (n,).
        idx: Which of its structures, (k,) integers in 0..n-1.
    """

    def __init__(self, parent: Kernel, idx: Int[Tensor, " k"]) -> None:
        self.parent = parent
        self.idx = idx

    def __len__(self) -> int:
        """Count the structures."""
        return len(self.idx)

    def diagonal(self) -> Float[Tensor, " k"]:
        """Return k(x, x), (k,)."""
        return self.parent.diagonal()[self.idx]

    def block(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return k(x, z) from the parents, (r, c)."""
        if isinstance(other, SubsetKernel):
            return self.parent.block(self.idx[rows], other.parent, other.idx[cols])
        return self.parent.block(self.idx[rows], other, cols)


@runtime_checkable
class _Takes(Protocol):
    """A kernel that can make a part of itself."""

    def take(self, rows: Rows) -> Kernel: ...


def take(kernel: Kernel, idx: Int[Tensor, " k"]) -> Kernel:
    """Return the kernel of the structures ``idx``, (k,), in that order."""
    return kernel.take(idx) if isinstance(kernel, _Takes) else SubsetKernel(kernel, idx)


def to_positions(rows: Rows, n: int) -> Int64[np.ndarray, " r"]:
    """Return the numbers, 0 to n - 1, of the structures that ``rows`` means, (r,) int64."""
    positions = np.arange(n, dtype=np.int64)
    chosen: np.ndarray = positions[rows if isinstance(rows, slice) else rows.cpu().numpy()]
    return chosen


def device_of(kernel: Kernel) -> torch.device:
    """Return the device on which a kernel's values come."""
    return kernel.device if isinstance(kernel, FeatureKernel) else kernel.diagonal().device


def block64(kernel: Kernel, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
    """Return k(x, z) as float64, computed in float64 where the kernel has features.

    Raises:
        SelectionError: A value is not finite.
        ArgumentError: The kernels do not belong together.
    """
    if isinstance(kernel, FeatureKernel):
        return kernel.block64(rows, other, cols)
    return checked_block(kernel, rows, other, cols)


def checked_block(kernel: Kernel, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
    """Return k(x, z) as the kernel computes it, converted to float64.

    Raises:
        SelectionError: A value is not finite.
        ArgumentError: The kernels do not belong together.
    """
    values = kernel.block(rows, other, cols).to(torch.float64)
    finite = isinstance(kernel, FeatureKernel) or bool(torch.isfinite(values).all())
    if not finite:  # features are checked when they come in
        raise SelectionError(
            f"{type(kernel).__name__}.block returned a value that is not finite: "
            "a kernel must be finite for every pair; mend the representation"
        )
    return values


def diagonal64(kernel: Kernel) -> Float[Tensor, " n"]:
    """Return k(x, x) as a float64 tensor that the caller may write to, (n,).

    Raises:
        SelectionError: A value is not finite or negative.
    """
    values = kernel.diagonal().to(torch.float64, copy=True)
    if bool((~torch.isfinite(values) | (values < 0)).any()):
        raise SelectionError(
            f"{type(kernel).__name__}.diagonal returned a value that is negative or not "
            "finite: k(x, x) must be finite and >= 0; mend the representation"
        )
    return values


def mean_similarity(kernel: Kernel, chunk_size: int = DEFAULT_CHUNK_SIZE) -> Float[Tensor, " n"]:
    """Return the mean of k(x, z) over all z of the same set, (n,) float64.

    O(n d) where there are features. Otherwise every pair is evaluated once, block by
    block: O(n²) time, O(n · chunk_size) memory.
    """
    n = len(kernel)
    if isinstance(kernel, FeatureKernel):
        return _mean_product(kernel)
    return torch.cat(
        [block64(kernel, rows, kernel, slice(None)).mean(dim=1) for rows in chunks(n, chunk_size)]
    )


def rounding_of_products(kernel: FeatureKernel) -> float:
    """Bound |k̂ − k| / (‖φ̃(x)‖‖φ̃(z)‖) for products in the features' precision.

    The worst case grows as d, the practice as √d (Higham and Mary, SIAM J. Sci.
    Comput. 41 (2019) A2815); the bound taken is min(d, 16 + 4√d) units of rounding,
    far above what is seen. Where the user allows reduced-precision products, it is
    theirs that count.
    """
    return rounding_of_width(kernel.width, kernel.dtype)


def row_chunks(kernel: Kernel, chunk_size: int) -> list[slice]:
    """Cut a kernel's structures into slices of at most ``chunk_size`` that are cheap to have."""
    if isinstance(kernel, FeatureKernel):
        return kernel.chunks(chunk_size)
    return chunks(len(kernel), chunk_size)


def _count(rows: Rows, n: int) -> int:
    """Count the structures that ``rows`` means, out of n."""
    return len(range(*rows.indices(n))) if isinstance(rows, slice) else len(rows)


def _mean_product(kernel: FeatureKernel) -> Float[Tensor, " n"]:
    """Return φᵀ(Σ φ)/n of every structure, (n,) float64."""
    total = torch.zeros(kernel.width, dtype=torch.float64, device=kernel.device)
    for part in _all_parts(kernel):
        total += part.to(torch.float64).sum(dim=0)
    total /= max(len(kernel), 1)
    means = torch.empty(len(kernel), dtype=torch.float64, device=kernel.device)
    start = 0
    for part in _all_parts(kernel):
        means[start : start + len(part)] = part.to(torch.float64) @ total
        start += len(part)
    return means


def _all_parts(kernel: FeatureKernel) -> Iterator[Float[Tensor, "_ d"]]:
    """Go through all rows by parts whose float64 copy stays in the cache."""
    for piece in kernel.pieces():
        yield from small_parts(kernel.rows(piece))


def _at(features: Float[Tensor, "n d"], rows: Rows) -> Float[Tensor, "r d"]:
    """Return some rows; ``index_select`` gathers three times as fast as indexing does."""
    return features[rows] if isinstance(rows, slice) else features.index_select(0, rows)
