"""The Tanimoto kernel of bit vectors, by counting bits."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.kernels.base import Kernel, Rows, to_positions

_WORD = 8  # bytes counted at once
# A bound of memory; a quarter and four times are as fast (benchmarks/results/constants.md).
_PAIRS_AT_ONCE = 2**17


class TanimotoKernel(Kernel):
    """k(a, b) = |a ∩ b| / |a ∪ b| of sets, given as bits.

    Two empty sets are equal: k = 1. That keeps k positive semi-definite (empty sets have a
    block of ones of their own) and k(a, a) = 1 for every set. A structure takes d / 8 bytes.

    Source: Ralaivola, Swamidass, Saigo and Baldi, Neural Networks 18 (2005) 1093.

    Args:
        bits: (n, d), zeros and ones of any number type, n >= 0, d >= 1. Not modified.

    Raises:
        ArgumentError: not two-dimensional, no columns, or other values.
    """

    def __init__(self, bits: np.ndarray) -> None:
        if bits.ndim != 2 or bits.shape[1] == 0:
            raise ArgumentError(
                f"bits have shape {bits.shape}: allowed is (n, d) with d >= 1, one row a structure"
            )
        if not np.isin(bits, (0, 1)).all():
            raise ArgumentError("bits hold other values than 0 and 1: give sets, not counts")
        self._set_words(pack_bits(bits), bits.shape[1])

    @classmethod
    def from_packed(cls, packed: UInt8[np.ndarray, "n b"], n_bits: int) -> TanimotoKernel:
        """Make a kernel of what ``pack_bits`` returned for rows of ``n_bits`` entries."""
        kernel = cls.__new__(cls)
        kernel._set_words(packed, n_bits)
        return kernel

    def _set_words(self, packed: UInt8[np.ndarray, "n b"], n_bits: int) -> None:
        padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % _WORD)))
        # Word by word, so that one word of all structures lies together.
        self._words = np.ascontiguousarray(padded.view(np.uint64).T)
        self._sizes = np.bitwise_count(self._words).sum(axis=0, dtype=np.int64)
        self.n_bits = n_bits

    def __len__(self) -> int:
        """Count the structures."""
        return len(self._sizes)

    def __repr__(self) -> str:
        return f"TanimotoKernel(n={len(self)}, n_bits={self.n_bits})"

    def diagonal(self) -> Float[Tensor, " n"]:
        """Return k(x, x) = 1 as a fresh (n,) float64 tensor."""
        return torch.ones(len(self), dtype=torch.float64)

    def block(self, rows: Rows, other: Kernel, cols: Rows) -> Float[Tensor, "r c"]:
        """Return k(x, z), (r, c) float64, exact to rounding.

        Raises:
            ArgumentError: ``other`` is of another kind or has another number of bits.
        """
        partner = self._checked_partner(other)
        mine, theirs = to_positions(rows, len(self)), to_positions(cols, len(partner))
        right, right_sizes = partner._words[:, theirs], partner._sizes[theirs]
        values = np.empty((len(mine), len(theirs)))
        step = max(1, _PAIRS_AT_ONCE // max(1, len(theirs)))
        for start in range(0, len(mine), step):
            part = mine[start : start + step]
            common = _count_common(self._words[:, part], right)
            union = self._sizes[part][:, None] + right_sizes - common
            values[start : start + step] = np.where(union, common / np.maximum(union, 1), 1.0)
        return torch.from_numpy(values)

    def take(self, rows: Rows) -> TanimotoKernel:
        """Return the kernel of a part of the structures, (k,), with bits copied."""
        kernel = TanimotoKernel.__new__(TanimotoKernel)
        chosen = to_positions(rows, len(self))
        kernel._words, kernel._sizes = self._words[:, chosen], self._sizes[chosen]
        kernel.n_bits = self.n_bits
        return kernel

    def _checked_partner(self, other: Kernel) -> TanimotoKernel:
        if not isinstance(other, TanimotoKernel) or other.n_bits != self.n_bits:
            raise ArgumentError(
                f"{self!r} cannot be paired with {other!r}: make both from the same representation"
            )
        return other


def pack_bits(bits: np.ndarray) -> UInt8[np.ndarray, "n b"]:
    """Pack zeros and ones, (n, d), into bytes, (n, ceil(d / 8))."""
    return np.packbits(bits.astype(bool), axis=1)


def _count_common(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return |a ∩ b|, (r, c) int64, of sets given word by word, (w, r) and (w, c) uint64."""
    common = np.zeros((left.shape[1], right.shape[1]), dtype=np.int64)
    for mine, theirs in zip(left, right, strict=True):
        common += np.bitwise_count(mine[:, None] & theirs)
    return common
