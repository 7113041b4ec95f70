"""Rows brought to a common scale before a kernel is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from labelwise.errors import ArgumentError, check_name
from labelwise.features.options import NORMALISATIONS
from labelwise.features.representations.base import FeatureBlock
from labelwise.features.row_parts import divide_by_norms, small_parts


def check_normalisation(normalise: str) -> None:
    """Raise ``ArgumentError`` unless ``normalise`` is ``cosine`` or ``none``."""
    check_name("normalise", normalise, NORMALISATIONS)


def normalise_rows(
    train: Float32[np.ndarray, "m d"],
    pool: Float32[np.ndarray, "n d"],
    blocks: Sequence[FeatureBlock],
    *,
    normalise: str = "cosine",
) -> None:
    """Scale the blocks of all rows, in place.

    ``cosine`` divides each block of each row by its own norm; zeros stay zeros. A structure
    then has k(x, x) = Σ_b w_b over its blocks that are not zero, and the length of a row says
    nothing. ``none`` divides each block by one number, the root mean square of its norms over
    all rows of both sets: lengths still tell structures apart, the mean of k(x, x) is
    Σ_b w_b, and a regularisation means the same as with ``cosine``. Norms are taken in
    float64, and each block is multiplied by √w_b.

    Args:
        train: Rows of the labelled structures, (m, d) float32, finite, m >= 0; overwritten.
        pool: Rows of the pool, (n, d) float32, finite, n >= 0; overwritten.
        blocks: The parts of a row, d entries together.
        normalise: ``cosine`` or ``none``.

    Raises:
        ArgumentError: unknown ``normalise``, or blocks that do not make up the rows.
    """
    check_normalisation(normalise)
    for rows in (train, pool):
        if sum(block.size for block in blocks) != rows.shape[1]:
            raise ArgumentError(
                f"the blocks have {[block.size for block in blocks]} entries, the rows "
                f"{rows.shape[1]}; a representation's blocks must make up its rows"
            )
    start = 0
    for block in blocks:
        columns = slice(start, start + block.size)
        parts = [torch.from_numpy(rows)[:, columns] for rows in (train, pool)]
        factor = math.sqrt(block.weight)
        if normalise == "cosine":
            for part in parts:
                divide_by_norms(part, part, factor)
        else:
            _divide_by_common_norm(parts, factor)
        start = columns.stop


def _divide_by_common_norm(parts: Sequence[Float[Tensor, "_ b"]], factor: float) -> None:
    n_rows = sum(len(part) for part in parts)
    few = [chunk for part in parts for chunk in small_parts(part)]
    square = sum(float(chunk.to(torch.float64).square_().sum()) for chunk in few)
    if square == 0.0:
        return
    scale = factor / math.sqrt(square / n_rows)
    for chunk in few:
        chunk.copy_(chunk.to(torch.float64) * scale)
