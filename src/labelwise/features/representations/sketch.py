"""A seeded random sketch: long rows to short ones with inner products kept on average."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt64
from torch import Tensor

from labelwise.errors import ArgumentError

#: What a seed of its own is derived for.
PROBES, ROW_SKETCH = range(2)


class CountSketch:
    """Adds every entry, with a random sign, to a random one of k places.

    For any two rows E⟨Sx, Sy⟩ = ⟨x, y⟩, with a variance of at most 2‖x‖²‖y‖²/k. Nothing
    but a place and a sign per entry is stored. Both come from an integer hash of seed and
    index, not from a random number generator, so that a seed means the same sketch with
    every version, machine and device.

    Source: Charikar, Chen, Farach-Colton, *Finding frequent items in data streams*, 2002;
    Weinberger et al., *Feature hashing*, ICML 2009.
    """

    def __init__(self, size: int, sketch_dim: int, *, seed: int = 0) -> None:
        """Draw the sketch.

        Args:
            size: p, length of the rows.
            sketch_dim: k, length of the sketched rows.
            seed: >= 0.

        Raises:
            ArgumentError: size or sketch_dim below one, or a negative seed.
        """
        if size < 1 or sketch_dim < 1 or seed < 0:
            raise ArgumentError(
                f"size is {size}, sketch_dim {sketch_dim} and seed {seed}; "
                "the first two must be at least 1 and the seed at least 0"
            )
        self.size = size
        self.sketch_dim = sketch_dim
        bits = hash_integers(np.arange(size, dtype=np.uint64), seed)
        # Sign from the lowest bit, place from the others: the two are independent.
        self._sign = torch.from_numpy(1.0 - 2.0 * (bits & np.uint64(1)).astype(np.float64))
        place = (bits >> np.uint64(1)) % np.uint64(sketch_dim)
        self._place = torch.from_numpy(place.astype(np.int64))

    def __call__(self, rows: Float[Tensor, "m q"], *, start: int = 0) -> Float[Tensor, "m k"]:
        """Sketch rows, or a part of their entries: the sketches of the parts sum to the whole's.

        Args:
            rows: (m, p) floating point, or (m, q): q entries from ``start`` on, the others
                being zero.
            start: Place of the first entry.

        Returns:
            (m, k), same type and device.
        """
        part = slice(start, start + rows.shape[1])
        signed = rows * self._sign[part].to(rows)
        out = rows.new_zeros(len(rows), self.sketch_dim)
        return out.index_add_(1, self._place[part].to(rows.device), signed)


def hash_integers(values: UInt64[np.ndarray, "*shape"], seed: int) -> UInt64[np.ndarray, "*shape"]:
    """Hash integers to 64 well-mixed bits each (SplitMix64).

    Args:
        values: Any shape, uint64.
        seed: >= 0.

    Returns:
        Same shape, uint64.

    Source: Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    start = _mix(np.array([seed], dtype=np.uint64) + golden)
    return _mix(start + (values + np.uint64(1)) * golden)


def _mix(z: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64[np.ndarray, "*shape"] = z ^ (z >> np.uint64(31))
    return mixed


def derive_seed(seed: int, purpose: int) -> int:
    """Return a seed of its own for a purpose.

    Signs of probes and of sketches must not be those of the sketch of the weights, which come
    from the same hash of seed and place: products of equal signs have no mean of zero.
    """
    return int(hash_integers(np.array([purpose], dtype=np.uint64), seed)[0] >> np.uint64(1))
