"""The linear kernel of explicit features: its products, and rows that are in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.features.row_parts import (
    checked_features,
    divide_by_norms,
    rounding_of_width,
    small_parts,
    squared_norms,
)
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel, Rows, chunks

# A bound of memory; 8 and 128 MiB are as fast (benchmarks/results/constants.md).
_PART_BYTES = 2**25


class FeatureKernel(Kernel):
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

    @property
    def products_per_value(self) -> int:
        """Multiplications of one value: d."""
        return self.width

    @property
    def rounding(self) -> float:
        """Bound |k̂ − k| / (‖φ̃(x)‖‖φ̃(z)‖) for products in the features' precision.

        The worst case grows as d, the practice as √d (Higham and Mary, SIAM J. Sci.
        Comput. 41 (2019) A2815); the bound taken is min(d, 16 + 4√d) units of rounding,
        far above what is seen. Where the user allows reduced-precision products, it is
        theirs that count.
        """
        return rounding_of_width(self.width, self.dtype)

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

    def check_partner(self, other: Kernel) -> None:
        """See ``Kernel.check_partner``."""
        self.checked_partner(other)

    def checked64(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return values as float64; features are checked when they come in."""
        return values.to(torch.float64)

    def mean_similarity(self, chunk_size: int = DEFAULT_CHUNK_SIZE) -> Float[Tensor, " n"]:  # noqa: ARG002
        """Return φᵀ(Σ φ)/n of every structure, (n,) float64."""
        total = torch.zeros(self.width, dtype=torch.float64, device=self.device)
        for part in self._small_parts():
            total += part.to(torch.float64).sum(dim=0)
        total /= max(len(self), 1)
        means = torch.empty(len(self), dtype=torch.float64, device=self.device)
        start = 0
        for part in self._small_parts():
            means[start : start + len(part)] = part.to(torch.float64) @ total
            start += len(part)
        return means

    def _small_parts(self) -> Iterator[Float[Tensor, "_ d"]]:
        """Go through all rows by parts whose float64 copy stays in the cache."""
        for piece in self.pieces():
            yield from small_parts(self.rows(piece))

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

    Example:
        >>> import torch
        >>> from labelwise import LinearKernel
        >>> kernel = LinearKernel(torch.tensor([[3.0, 4.0], [4.0, 3.0]]))
        >>> kernel.block(slice(0, 1), kernel, slice(1, 2))
        tensor([[0.9600]])

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
        self._features = tensor
        if normalise == "cosine":
            self._features = divide_by_norms(tensor, torch.empty_like(tensor))

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


def _count(rows: Rows, n: int) -> int:
    """Count the structures that ``rows`` means, out of n."""
    return len(range(*rows.indices(n))) if isinstance(rows, slice) else len(rows)


def _at(features: Float[Tensor, "n d"], rows: Rows) -> Float[Tensor, "r d"]:
    """Return some rows; ``index_select`` gathers three times as fast as indexing does."""
    return features[rows] if isinstance(rows, slice) else features.index_select(0, rows)
