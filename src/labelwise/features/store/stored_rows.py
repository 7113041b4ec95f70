"""Rows as a feature store keeps them: unit blocks beside their norms, in few bits or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, UInt16

from labelwise.errors import ArgumentError
from labelwise.features.representations.base import FeatureBlock
from labelwise.features.representations.normalisation import normalise_rows
from labelwise.features.row_parts import NORM_FLOOR, small_parts

#: The Zarr data type of each storage dtype; bfloat16, which Zarr does not have, is kept as bits.
ZARR_DTYPES = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}

Blocks: TypeAlias = Sequence[tuple[int, float]]
StoredRows: TypeAlias = (
    Float32[np.ndarray, "_ _"] | Float16[np.ndarray, "_ _"] | UInt16[np.ndarray, "_ _"]
)


def split_norms(
    rows: Float32[np.ndarray, "k d"], blocks: Blocks
) -> tuple[Float32[np.ndarray, "k d"], Float64[np.ndarray, "k b"]]:
    """Split rows into rows whose blocks have unit norm, and the norms.

    The unit rows are those of ``normalise_rows`` with ``cosine`` and weights of one, bit by bit.

    Args:
        rows: (k, d); not modified.
        blocks: Size and weight of the parts of a row; the weights are not looked at.

    Returns:
        Unit rows (k, d) float32, zeros where a block is zero; norms (k, n_blocks) float64, in
        the rows' unit.

    Raises:
        ArgumentError: A value that is not finite, or blocks that do not make up the rows.
    """
    unit = np.array(rows, dtype=np.float32, order="C")
    columns = _block_columns(blocks)
    if columns[-1].stop != rows.shape[1]:
        raise ArgumentError(
            f"the blocks have {[size for size, _ in blocks]} entries, the rows {rows.shape[1]}; "
            "a representation's blocks must make up its rows"
        )
    norms = np.stack([_norms(torch.from_numpy(unit)[:, part]) for part in columns], axis=1)
    finite = np.isfinite(norms).all(axis=1)
    if not finite.all():
        raise ArgumentError(
            f"row {int((~finite).argmax())} of those to be stored has a value that is not finite; "
            "leave such rows out"
        )
    nothing = np.empty((0, rows.shape[1]), np.float32)
    normalise_rows(nothing, unit, [FeatureBlock(size) for size, _ in blocks])
    return unit, norms


def find_common_norms(*norms: Float64[np.ndarray, "_ b"]) -> Float64[np.ndarray, " b"]:
    """Return the root mean square of each block's norms over all rows.

    Args:
        *norms: (k, n_blocks) each: of the labelled structures and of the pool.

    Returns:
        (n_blocks,), by which ``normalise_rows`` with ``none`` divides; 0 without rows.

    Raises:
        ArgumentError: No norms at all.
    """
    if not norms:
        raise ArgumentError("norms of at least one set of rows are needed")
    n_rows = sum(len(part) for part in norms)
    squares = np.sum([np.square(part).sum(axis=0) for part in norms], axis=0)
    common: Float64[np.ndarray, " b"] = np.sqrt(squares / max(n_rows, 1))
    return common


def find_scales(
    blocks: Blocks,
    norms: Float64[np.ndarray, "k b"] | None = None,
    common_norms: Float64[np.ndarray, " b"] | None = None,
) -> Float64[np.ndarray, "_ b"]:
    """Return what the blocks of unit rows are multiplied by for a kernel.

    Args:
        blocks: Size and weight of the parts of a row.
        norms: (k, n_blocks), to restore lengths; None for ``cosine``.
        common_norms: (n_blocks,), see ``find_common_norms``; with ``norms`` only.

    Returns:
        √w_b, (1, n_blocks); with norms √w_b · norm / common norm, (k, n_blocks).
    """
    weights = np.sqrt(np.array([[weight for _, weight in blocks]], dtype=np.float64))
    if norms is None or common_norms is None:
        return weights
    divisor = np.where(common_norms > 0.0, common_norms, 1.0)
    scales: Float64[np.ndarray, "_ b"] = np.maximum(norms, NORM_FLOOR) * (weights / divisor)
    return scales


def scale_blocks(
    rows: Float32[np.ndarray, "k d"], blocks: Blocks, scales: Float64[np.ndarray, "_ b"]
) -> None:
    """Multiply each block of each row by its scale, in place; products are taken in float64.

    Args:
        rows: (k, d); overwritten.
        blocks: Size and weight of the parts of a row; the weights are not looked at.
        scales: (k, n_blocks), or (1, n_blocks) for all rows.
    """
    for number, columns in enumerate(_block_columns(blocks)):
        scale = scales[:, number : number + 1]
        if (scale != 1.0).any():
            part = rows[:, columns]
            np.multiply(part, scale, out=part, dtype=np.float64, casting="same_kind")


def to_storage(rows: Float32[np.ndarray, "k d"], storage_dtype: str) -> StoredRows:
    """Return rows rounded to a storage dtype; bfloat16 as its bits, uint16.

    Args:
        rows: (k, d), contiguous.
        storage_dtype: ``float32``, ``float16`` or ``bfloat16``.
    """
    if storage_dtype == "float32":
        return rows
    wide = torch.from_numpy(rows)
    if storage_dtype == "float16":
        half: Float16[np.ndarray, "k d"] = wide.to(torch.float16).numpy()
        return half
    bits: UInt16[np.ndarray, "k d"] = wide.to(torch.bfloat16).view(torch.uint16).numpy()
    return bits


def from_storage(stored: StoredRows, storage_dtype: str) -> Float32[np.ndarray, "k d"]:
    """Return rows of ``to_storage`` as float32; those kept as float32 are not copied."""
    if storage_dtype == "float32":
        return stored
    tensor = torch.from_numpy(stored)
    if storage_dtype == "bfloat16":
        tensor = tensor.view(torch.bfloat16)
    rows: Float32[np.ndarray, "k d"] = tensor.to(torch.float32).numpy()
    return rows


def _block_columns(blocks: Blocks) -> list[slice]:
    stops = np.cumsum([size for size, _ in blocks]).tolist()
    return [slice(stop - size, stop) for stop, (size, _) in zip(stops, blocks, strict=True)]


def _norms(rows: torch.Tensor) -> Float64[np.ndarray, " k"]:
    wide = (part.to(torch.float64) for part in small_parts(rows))
    norms = [torch.linalg.vector_norm(part, dim=1) for part in wide]
    joined: Float64[np.ndarray, " k"] = torch.cat(norms).numpy()
    return joined
