"""Laws that every representation must obey.

``check_representation`` computes features of a few structures and raises ``AssertionError``
with the name of the law that is broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
from ase import Atoms
from jaxtyping import Int64

from labelwise.features.representations.base import Representation
from labelwise.features.representations.extract import (
    Chunk,
    Rows,
    feature_blocks,
    feature_size,
    iter_features,
    join_rows,
    represent,
)
from labelwise.features.representations.rows import SparseRows, join_sparse
from labelwise.potentials.base import Potential
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
    chunks = list(iter_features(structures, potential, representation))
    shape = (sum(len(chunk) for chunk in chunks), chunks[0].shape[1])
    wanted_shape = (len(structures), feature_size(representation, potential))
    require(shape == wanted_shape, f"features are {shape}, size() says {wanted_shape}")
    columns = _used_columns(chunks)
    blocks = feature_blocks(representation, potential)
    require(sum(block.size for block in blocks) == shape[1], "blocks do not make up the row")
    require(all(block.size >= 1 and block.weight >= 0 for block in blocks), "impossible blocks")
    require(rows.dtype == np.float32, f"features are {rows.dtype}, not float32")
    require(np.isfinite(rows).all(), "features are not finite")
    require(len(np.unique(rows, axis=0)) > 1, "all structures have the same features")

    def check(got: Rows, wanted: Rows, law: str) -> None:
        error = np.abs(got - wanted).max() / np.abs(rows).max()
        require(error <= tolerance, f"{law}: relative difference {error:.1e}")

    def compute(which: Sequence[Atoms]) -> Rows:
        return _dense(list(iter_features(which, potential, representation)), columns)

    check(compute(structures), rows, "reproducible")
    check(compute(structures[::-1])[::-1], rows, "order")
    _check_batches(representation, structures, potential, rows, columns, tolerance)
    empty = represent([], potential, representation)
    require(empty.shape == (0, shape[1]), "no structures must give no rows")
    for atoms, row in zip(structures, rows, strict=True) if invariant else ():
        for law, (copy, _) in symmetry_copies(atoms).items():
            check(compute([copy]), row[None], law)


def _used_columns(chunks: Sequence[Chunk]) -> Int64[np.ndarray, " u"]:
    """Return the columns that sparse rows use; none if rows are dense."""
    sparse = [chunk for chunk in chunks if isinstance(chunk, SparseRows)]
    return join_sparse(sparse, chunks[0].shape[1]).used_columns()


def _dense(chunks: Sequence[Chunk], columns: Int64[np.ndarray, " u"]) -> Rows:
    """Join rows; of sparse ones the given columns."""
    sparse = [chunk for chunk in chunks if isinstance(chunk, SparseRows)]
    if sparse:
        return join_sparse(sparse, sparse[0].shape[1]).to_dense(columns)
    return join_rows(chunks)


def _check_batches(
    representation: Representation,
    structures: Sequence[Atoms],
    potential: Potential | None,
    rows: Rows,
    columns: Int64[np.ndarray, " u"],
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
        error = np.abs(_dense(chunks, columns) - rows).max() / np.abs(rows).max()
        require(error <= tolerance, f"batch_atoms={batch_atoms}: relative difference {error:.1e}")
        require(done[-1] == len(structures) and done == sorted(done), "progress is wrong")
