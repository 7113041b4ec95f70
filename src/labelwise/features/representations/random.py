"""``random``: Gaussian noise, the baseline that knows nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from jaxtyping import Float32

from labelwise.errors import ArgumentError
from labelwise.features.representations.base import (
    RepresentationOptions,
    StructureRepresentation,
    register_representation,
)

DEFAULT_SIZE = 256


class RandomFeatures(StructureRepresentation):
    """Independent standard normal numbers, seeded by each structure's content.

    What a rule achieves with these it achieves without looking at the structures. The seed
    is made of elements, positions to 1e-6 Å, cell and boundary conditions, so that neither
    the order of files nor the batch matters and equal frames get equal rows; unlike the real
    representations, a rotated copy gets another row.
    """

    name = "random"

    def __init__(self, options: RepresentationOptions) -> None:
        """Take ``seed``, and ``sketch_dim`` as the length of a row (256 by default).

        Raises:
            ArgumentError: a negative seed or sketch_dim < 1.
        """
        size = options.sketch_dim if options.sketch_dim is not None else DEFAULT_SIZE
        if options.seed < 0 or size < 1:
            raise ArgumentError(
                f"seed is {options.seed} and sketch_dim {size}; allowed are >= 0 and >= 1"
            )
        self._seed = options.seed
        self._size = size

    def size(self) -> int:
        """Return the length of a row."""
        return self._size

    def compute(self, structures: Sequence[Atoms]) -> Float32[np.ndarray, "n d"]:
        """Return (n, d) float32, dimensionless."""
        rows = [self._row(atoms) for atoms in structures]
        return np.stack(rows) if rows else np.empty((0, self._size), dtype=np.float32)

    def _row(self, atoms: Atoms) -> Float32[np.ndarray, " d"]:
        generator = np.random.Generator(np.random.PCG64([self._seed, _content_seed(atoms)]))
        return generator.standard_normal(self._size, dtype=np.float32)


def _content_seed(atoms: Atoms) -> int:
    """Return 128 bits that depend on what the structure is and not on where it was read."""
    micro = np.rint(np.concatenate((atoms.positions, atoms.cell.array)) * 1e6).astype("<i8")
    digest = hashlib.sha256(atoms.numbers.astype("<i8").tobytes())
    digest.update(micro.tobytes())
    digest.update(atoms.pbc.tobytes())
    return int.from_bytes(digest.digest()[:16], "little")


register_representation(RandomFeatures.name, RandomFeatures)
