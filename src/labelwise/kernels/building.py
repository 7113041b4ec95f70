"""From structures, or from rows as they come, to kernels that can be paired with each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from ase import Atoms
from jaxtyping import Float32, Int64

from labelwise.errors import ArgumentError, StructureError
from labelwise.features.options import KernelOptions
from labelwise.features.representations import (
    Representation,
    RepresentationOptions,
    SparseRows,
    check_normalisation,
    is_finite,
    iter_features,
    make_representation,
    normalise_rows,
)
from labelwise.features.representations.rows import MOST_DENSE_COLUMNS
from labelwise.features.row_parts import NORM_FLOOR
from labelwise.features.store.memory import MemoryRows
from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.sparse import SparseLinearKernel
from labelwise.kernels.tanimoto import TanimotoKernel
from labelwise.potentials.base import Potential

_ROWS_AT_ONCE = 256


def build_kernels(
    sets: Sequence[Sequence[Atoms]],
    potential: Potential | None = None,
    representation: str | Representation = KernelOptions.representation,
    *,
    options: RepresentationOptions | None = None,
    normalise: str = "cosine",
    batch_atoms: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Kernel, ...]:
    """Make the kernels of several sets of structures, which can be paired with each other.

    Args:
        sets: For instance labelled structures and a pool; not modified. Sets may be empty.
        potential: Where features come from; None for representations without a model.
        representation: A registered name, or the thing itself, to which ``options`` do not
            apply.
        options: Of the representation; None for the defaults.
        normalise: ``cosine``, or ``none``: one common scale over all sets, see
            ``normalise_rows``. Tanimoto kernels know ``cosine`` only.
        batch_atoms: Atoms evaluated at once.
        progress: Called with the number of structures finished so far, over all sets.

    Returns:
        One kernel a set, dimensionless: of bits (``morgan``) Tanimoto kernels, of sparse rows
        with many columns (``soap``) sparse ones, else linear ones.

    Raises:
        ArgumentError: An unknown name, an option out of range, or a model is needed.
        StructureError: A structure that the representation cannot take, or whose features are
            not finite.
        MissingDependencyError: The representation needs a package that is not installed.
    """
    if isinstance(representation, str):
        representation = make_representation(representation, options)
    check_kernel(representation, normalise)
    rows = MemoryRows(representation, potential)
    joined = (atoms for structures in sets for atoms in structures)
    for chunk in iter_features(
        joined, potential, representation, batch_atoms=batch_atoms, progress=progress
    ):
        finite = is_finite(chunk)
        if not finite.all():
            place, number = len(rows) + int(np.argmin(finite)), 0
            while place >= len(sets[number]):
                place, number = place - len(sets[number]), number + 1
            raise StructureError(
                f"structure {place} of set {number} has {representation.name} features "
                "that are not finite, perhaps because atoms nearly coincide; set it aside"
            )
        rows.extend(chunk)
    ends = np.cumsum([len(structures) for structures in sets])
    return open_kernels(rows, np.split(np.arange(len(rows)), ends[:-1]), normalise=normalise)


def open_kernels(
    rows: MemoryRows, places: Sequence[Int64[np.ndarray, " _"]], *, normalise: str = "cosine"
) -> tuple[Kernel, ...]:
    """Make kernels of rows in memory, which go as they are taken unless they are kept.

    Args:
        rows: Rows of one representation.
        places: Of each set of structures those of its rows.
        normalise: ``cosine``, or ``none``: one common scale over all sets, see
            ``normalise_rows``.

    Returns:
        One kernel a set, which can be paired with each other.

    Raises:
        ArgumentError: An unknown ``normalise``, or ``none`` with a Tanimoto kernel.
    """
    check_kernel(rows.representation, normalise)
    taken = rows.take(np.concatenate([np.zeros(0, np.int64), *places]))
    cuts = np.cumsum([len(each) for each in places])[:-1]
    if isinstance(taken, SparseRows):
        block = rows.representation.column_block
        assert block is not None  # noqa: S101  (sparse rows have one)
        starts = [0, *cuts.tolist()]
        sets = [taken[a:b] for a, b in pairwise([*starts, len(taken)])]
        return _sparse_kernels(sets, block, normalise)
    if rows.representation.kernel == "tanimoto":
        parts = np.split(taken, cuts)
        return tuple(TanimotoKernel.from_packed(part, rows.width) for part in parts)
    normalise_rows(taken[:0], taken, rows.blocks, normalise=normalise)
    return _linear_kernels(taken, cuts)


def check_kernel(representation: Representation, normalise: str) -> None:
    """Raise unless rows of a representation can be normalised in this way.

    Raises:
        ArgumentError: An unknown ``normalise``, or ``none`` with a Tanimoto kernel.
    """
    check_normalisation(normalise)
    if representation.kernel == "tanimoto" and normalise == "none":
        raise ArgumentError(
            f"normalise is 'none', but {representation.name!r} makes a Tanimoto kernel, which "
            "compares sets and knows no lengths: leave normalise out, or choose another "
            "representation"
        )


def _sparse_kernels(
    sets: Sequence[SparseRows], column_block: int, normalise: str
) -> tuple[Kernel, ...]:
    """Return linear kernels if few columns are in use, else sparse ones."""
    sets = _normalise_sparse(sets, normalise)
    width = sets[0].shape[1]
    used = np.zeros(width, dtype=bool)
    for part in sets:
        used[part.matrix.indices] = True
    columns = np.flatnonzero(used).astype(np.int64)
    if len(columns) > MOST_DENSE_COLUMNS:
        return tuple(SparseLinearKernel(part, column_block=column_block) for part in sets)
    rows = np.zeros((sum(map(len, sets)), max(1, len(columns))), dtype=np.float32)
    n_done = 0
    for part in sets:
        for few in (part[i : i + _ROWS_AT_ONCE] for i in range(0, len(part), _ROWS_AT_ONCE)):
            rows[n_done : n_done + len(few), : len(columns)] = few.to_dense(columns)
            n_done += len(few)
    return _linear_kernels(rows, np.cumsum([len(part) for part in sets])[:-1])


def _linear_kernels(
    rows: Float32[np.ndarray, "n d"], cuts: Int64[np.ndarray, " _"]
) -> tuple[LinearKernel, ...]:
    """Return one kernel a set, of rows that are normalised already and not copied."""
    return tuple(LinearKernel(part, normalise="none") for part in np.split(rows, cuts))


def _normalise_sparse(sets: Sequence[SparseRows], normalise: str) -> list[SparseRows]:
    """Return scaled rows, as ``normalise_rows`` with one block of weight one."""
    squares = [_square_norms(part) for part in sets]
    n_rows = sum(len(square) for square in squares)
    common = math.sqrt(sum(float(square.sum()) for square in squares) / max(1, n_rows))
    norms = [
        np.sqrt(square) if normalise == "cosine" else np.full(len(square), common)
        for square in squares
    ]
    return [
        part.scale(1.0 / np.maximum(norm, NORM_FLOOR))
        for part, norm in zip(sets, norms, strict=True)
    ]


def _square_norms(rows: SparseRows) -> np.ndarray:
    """Return ‖φ‖², (n,) float64."""
    row_of_entry = np.repeat(np.arange(len(rows)), np.diff(rows.matrix.indptr))
    squares = np.square(rows.matrix.data, dtype=np.float64)
    sums: np.ndarray = np.bincount(row_of_entry, weights=squares, minlength=len(rows))
    return sums
