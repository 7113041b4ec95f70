"""Laws that every representation must obey.

``check_representation`` computes features of a few structures and raises ``AssertionError``
with the name of the law that is broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
from ase import Atoms

from labelwise.potentials.base import Potential
from labelwise.representations.base import Representation
from labelwise.representations.extract import (
    Rows,
    feature_blocks,
    feature_size,
    iter_features,
    represent,
)
from labelwise.testing.potentials import require, symmetry_copies


def check_representation(
    representation: Representation,
    structures: Sequence[Atoms],
    potential: Potential | None = None,
    *,
    invariant: bool = True,
    tolerance: float = 1e-4,
) -> None:
    """Raise unless a representation obeys the laws.

    Args:
        representation: The representation.
        structures: At least three different structures that it can take.
        potential: For representations that need one.
        invariant: Whether rows must stay under rotation, reflection, translation and another
            order of the atoms; false for noise and for estimates from random probes.
        tolerance: Largest difference allowed where rows must agree, relative to the largest
            entry; features are float32.

    Raises:
        AssertionError: A law is broken; the message names it.
    """
    before = deepcopy(list(structures))
    rows = represent(structures, potential, representation)
    for atoms, copy in zip(structures, before, strict=True):
        require(atoms == copy and atoms.info == copy.info, "the structure was changed")
    shape = (len(structures), feature_size(representation, potential))
    require(rows.shape == shape, f"features are {rows.shape}, size() says {shape}")
    blocks = feature_blocks(representation, potential)
    require(sum(block.size for block in blocks) == shape[1], "blocks do not make up the row")
    require(all(block.size >= 1 and block.weight >= 0 for block in blocks), "impossible blocks")
    require(rows.dtype == np.float32, f"features are {rows.dtype}, not float32")
    require(np.isfinite(rows).all(), "features are not finite")
    require(len(np.unique(rows, axis=0)) > 1, "all structures have the same features")

    def check(got: Rows, wanted: Rows, law: str) -> None:
        error = np.abs(got - wanted).max() / np.abs(rows).max()
        require(error <= tolerance, f"{law}: relative difference {error:.1e}")

    check(represent(structures, potential, representation), rows, "reproducible")
    check(represent(structures[::-1], potential, representation)[::-1], rows, "order")
    _check_batches(representation, structures, potential, rows, tolerance)
    empty = represent([], potential, representation)
    require(empty.shape == (0, shape[1]), "no structures must give no rows")
    for atoms, row in zip(structures, rows, strict=True) if invariant else ():
        for law, (copy, _) in symmetry_copies(atoms).items():
            check(represent([copy], potential, representation), row[None], law)


def _check_batches(
    representation: Representation,
    structures: Sequence[Atoms],
    potential: Potential | None,
    rows: Rows,
    tolerance: float,
) -> None:
    for batch_atoms in (1, 7, 10_000):
        done: list[int] = []
        chunks = list(
            iter_features(
                iter(structures),
                potential,
                representation,
                batch_atoms=batch_atoms,
                progress=done.append,
            )
        )
        error = np.abs(np.concatenate(chunks) - rows).max() / np.abs(rows).max()
        require(error <= tolerance, f"batch_atoms={batch_atoms}: relative difference {error:.1e}")
        require(done[-1] == len(structures) and done == sorted(done), "progress is wrong")
