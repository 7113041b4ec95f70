"""Feature rows as arrays: are they fit for products, how long are they, what do products round?

Everything that is done row by row goes by parts whose float64 copy stays in the cache.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import ArgumentError

#: Norms below this count as this.
NORM_FLOOR = 1e-12


def chunks(n: int, chunk_size: int) -> list[slice]:
    """Cut range(n) into slices of at most ``chunk_size``."""
    return [slice(start, min(start + chunk_size, n)) for start in range(0, n, chunk_size)]


def small_parts(features: Float[Tensor, "n d"]) -> list[Float[Tensor, "_ d"]]:
    """Cut rows into views whose float64 copy stays in the cache; at least one."""
    return list(torch.split(features, max(16, 2**16 // features.shape[1])))


def squared_norms(rows: Float[Tensor, "r d"]) -> Float[Tensor, " r"]:
    """Return ‖φ̃‖² of rows, (r,) float64, fresh."""
    norms = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    parts = small_parts(rows)
    wide = torch.empty_like(parts[0], dtype=torch.float64)
    for part, out in zip(parts, torch.split(norms, max(1, len(wide))), strict=True):
        squares = wide[: len(part)].copy_(part).square_()
        torch.sum(squares, dim=1, out=out)
    return norms


def divide_by_norms(
    rows: Float[Tensor, "n d"], out: Float[Tensor, "n d"], factor: float = 1.0
) -> Float[Tensor, "n d"]:
    """Write rows to ``out``, which may be the same, each over its norm, times a factor.

    Norms are taken in float64; a row of zeros stays one.
    """
    for part, to in zip(small_parts(rows), small_parts(out), strict=True):
        wide = part.to(torch.float64)
        norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        to.copy_(wide / norm.clamp_min(NORM_FLOOR) * factor)
    return out


def check_range(features: Float[Tensor, "n d"], first: int = 0) -> None:
    """Raise unless every value is finite and every product of two rows is.

    Args:
        features: (n, d) float32 or float64.
        first: Number of the first structure, for the message.

    Raises:
        ArgumentError: It is not; the message names the structure.
    """
    limit = math.sqrt(torch.finfo(features.dtype).max / (4.0 * features.shape[1]))
    start = first
    for part in small_parts(features):
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


def checked_features(
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
    check_range(tensor)
    return tensor


def rounding_of_width(d: int, dtype: torch.dtype) -> float:
    """Return the bound of ``rounding_of_products`` for rows of length ``d``."""
    eps = torch.finfo(dtype).eps
    if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        eps = 2.0**-7  # bfloat16, the coarsest that torch may choose
    return min(d, 16 + 4 * math.sqrt(d)) * eps
