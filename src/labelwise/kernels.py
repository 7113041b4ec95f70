"""Kernels as diagonals, columns and blocks, made on demand.

A kernel here is *a set of structures under one representation*: it knows how many
structures there are and what k(x, x') is between them and those of another set. No
selection rule asks for more than a diagonal, a few columns or a block of rows, so
nothing of size n × n is ever held.

``LinearKernel`` holds explicit features. A kernel without features (Tanimoto on bit
vectors, see ``tanimoto``, or sparse rows, see ``sparse_kernel``) only has to offer the three
methods of ``Kernel``; every rule takes it.

Kernel values are dimensionless throughout.
"""

from __future__ import annotations

import math
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from labelwise.errors import ArgumentError, SelectionError

Rows: TypeAlias = Int[Tensor, " _"] | slice

NORM_FLOOR = 1e-12
DEFAULT_CHUNK_SIZE = 4096


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

    def columns(self, other: Kernel, cols: Rows) -> Float[Tensor, "n c"]:
        """Return k(x, z) for every x in ``self`` and z in ``other[cols]``."""
        ...


class LinearKernel:
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
        tensor = _checked_features(features, device, dtype)
        self.normalise = normalise
        self._features = _unit_rows(tensor) if normalise == "cosine" else tensor

    @classmethod
    def _from_rows(cls, rows: Float[Tensor, "n d"], normalise: str) -> LinearKernel:
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

    def __len__(self) -> int:
        """Count the structures."""
        return self._features.shape[0]

    def __repr__(self) -> str:
        n, d = self._features.shape
        return f"LinearKernel(n={n}, d={d}, normalise={self.normalise!r}, dtype={self.dtype})"

    def diagonal(self) -> Float[Tensor, " n"]:
        """Return ‖φ̃(x)‖², (n,) float64, fresh."""
        parts = _row_chunks(self._features)
        return torch.cat([part.to(torch.float64, copy=True).square_().sum(dim=1) for part in parts])

    def block(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return φ̃(x)ᵀφ̃(z) in the features' precision, (r, c).

        Raises:
            ArgumentError: ``other`` is of another kind, width, precision, device or
                normalisation.
        """
        linear = self.checked_partner(other)
        return _at(self._features, rows) @ _at(linear.features, cols).T

    def columns(self, other: Kernel, cols: Rows) -> Float[Tensor, "n c"]:
        """Return ``block(slice(None), other, cols)``, (n, c)."""
        return self.block(slice(None), other, cols)

    def block64(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return the same as ``block``, multiplied and summed in float64."""
        linear = self.checked_partner(other)
        return (
            _at(self._features, rows).to(torch.float64)
            @ _at(linear.features, cols).to(torch.float64).T
        )

    def take(self, rows: Rows) -> LinearKernel:
        """Return the kernel of a part of the structures, (k,), with rows copied."""
        return LinearKernel._from_rows(_at(self._features, rows), self.normalise)

    def checked_partner(self, other: Kernel) -> LinearKernel:
        """Return ``other`` if its features can be multiplied with these.

        Raises:
            ArgumentError: It is of another kind, width, precision, device or
                normalisation.
        """
        if not isinstance(other, LinearKernel):
            raise ArgumentError(
                f"a LinearKernel cannot be paired with a {type(other).__name__}: "
                "make both from the same representation"
            )
        for name, mine, theirs in (
            ("width", self._features.shape[1], other.features.shape[1]),
            ("normalise", self.normalise, other.normalise),
            ("dtype", self.dtype, other.dtype),
            ("device", self.device, other.device),
        ):
            if mine != theirs:
                raise ArgumentError(
                    f"two kernels differ in {name}: {mine} and {theirs}; "
                    "make both from the same representation, with the same settings"
                )
        return other


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

    def columns(self, other: Kernel, cols: Rows) -> Float[Tensor, "k c"]:
        """Return k(x, z) for all x of this part, (k, c)."""
        return self.block(slice(None), other, cols)


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
    return kernel.device if isinstance(kernel, LinearKernel) else kernel.diagonal().device


def block64(kernel: Kernel, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
    """Return k(x, z) as float64, computed in float64 where the kernel has features.

    Raises:
        SelectionError: A value is not finite.
        ArgumentError: The kernels do not belong together.
    """
    if isinstance(kernel, LinearKernel):
        return kernel.block64(rows, other, cols)
    return checked_block(kernel, rows, other, cols)


def checked_block(kernel: Kernel, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
    """Return k(x, z) as the kernel computes it, converted to float64.

    Raises:
        SelectionError: A value is not finite.
        ArgumentError: The kernels do not belong together.
    """
    values = kernel.block(rows, other, cols).to(torch.float64)
    finite = isinstance(kernel, LinearKernel) or bool(torch.isfinite(values).all())
    if not finite:  # a LinearKernel is checked on construction
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
    if isinstance(kernel, LinearKernel):
        parts = _row_chunks(kernel.features)
        total = torch.stack([part.to(torch.float64).sum(dim=0) for part in parts]).sum(dim=0)
        return torch.cat([part.to(torch.float64) @ (total / n) for part in parts])
    return torch.cat(
        [block64(kernel, rows, kernel, slice(None)).mean(dim=1) for rows in chunks(n, chunk_size)]
    )


def rounding_of_products(kernel: LinearKernel) -> float:
    """Bound |k̂ − k| / (‖φ̃(x)‖‖φ̃(z)‖) for products in the features' precision.

    The worst case grows as d, the practice as √d (Higham and Mary, SIAM J. Sci.
    Comput. 41 (2019) A2815); the bound taken is min(d, 16 + 4√d) units of rounding,
    far above what is seen. Where the user allows reduced-precision products, it is
    theirs that count.
    """
    d = kernel.features.shape[1]
    eps = torch.finfo(kernel.dtype).eps
    if kernel.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        eps = 2.0**-7  # bfloat16, the coarsest that torch may choose
    return min(d, 16 + 4 * math.sqrt(d)) * eps


def chunks(n: int, chunk_size: int) -> list[slice]:
    """Cut range(n) into slices of at most ``chunk_size``."""
    return [slice(start, min(start + chunk_size, n)) for start in range(0, n, chunk_size)]


def _at(features: Float[Tensor, "n d"], rows: Rows) -> Float[Tensor, "r d"]:
    """Return some rows; ``index_select`` gathers three times as fast as indexing does."""
    return features[rows] if isinstance(rows, slice) else features.index_select(0, rows)


def _row_chunks(features: Float[Tensor, "n d"]) -> list[Float[Tensor, "_ d"]]:
    """Cut rows into views whose float64 copy stays in the cache; at least one."""
    return list(torch.split(features, max(16, 2**16 // features.shape[1])))


def _checked_features(
    features: Tensor | np.ndarray,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Float[Tensor, "n d"]:
    """Return the features as a detached tensor that is fit for products."""
    if isinstance(features, np.ndarray) and not features.flags.writeable:
        features = features.copy()  # torch wants memory that it may write to
    tensor = torch.as_tensor(features).detach()
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise ArgumentError(
            f"features have shape {tuple(tensor.shape)}: allowed is (n, d) with d >= 1, "
            "one row per structure"
        )
    if not tensor.is_floating_point():
        raise ArgumentError(f"features are {tensor.dtype}: convert them to float32 or float64")
    target = torch.device("cpu") if tensor.device.type == "mps" else tensor.device
    tensor = tensor.to(device=target if device is None else device, dtype=dtype)
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ArgumentError(f"features are {tensor.dtype}: allowed are float32 and float64")
    _check_range(tensor)
    return tensor


def _check_range(features: Float[Tensor, "n d"]) -> None:
    """Raise unless every value is finite and every product of two rows is."""
    limit = math.sqrt(torch.finfo(features.dtype).max / (4.0 * features.shape[1]))
    start = 0
    for part in _row_chunks(features):
        if part.numel() and not bool(part.abs().amax() <= limit):
            row = int(torch.nonzero(~(part.abs().amax(dim=1) <= limit))[0])
            if bool(torch.isfinite(part[row]).all()):
                raise ArgumentError(
                    f"features of structure {start + row} exceed {limit:.1e}, beyond which "
                    f"{features.dtype} cannot square them: rescale, or use float64"
                )
            raise ArgumentError(
                f"features of structure {start + row} are not finite (NaN or infinite): "
                "screen the structure out, or mend the representation"
            )
        start += part.shape[0]


def _unit_rows(features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Divide each row by its norm, taken in float64, into a new tensor."""
    unit = torch.empty_like(features)
    for part, out in zip(_row_chunks(features), _row_chunks(unit), strict=True):
        wide = part.to(torch.float64)
        norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        out.copy_(wide / norm.clamp_min(NORM_FLOOR))
    return unit
