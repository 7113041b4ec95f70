"""From structures, or from rows as they come, to kernels that can be paired with each other."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float32, Int64, UInt8

from labelwise.errors import ArgumentError, StructureError
from labelwise.features.representations import (
    Chunk,
    FeatureBlock,
    Representation,
    RepresentationOptions,
    SparseRows,
    StructureRepresentation,
    check_normalisation,
    feature_blocks,
    feature_size,
    is_finite,
    iter_features,
    join_sparse,
    make_representation,
    normalise_rows,
)
from labelwise.features.representations.rows import MOST_DENSE_COLUMNS
from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.sparse import SparseLinearKernel
from labelwise.kernels.tanimoto import TanimotoKernel, pack_bits
from labelwise.potentials.base import Potential

_NORM_FLOOR = 1e-12


def build_kernels(
    sets: Sequence[Sequence[Atoms]],
    potential: Potential | None = None,
    representation: str | Representation = "ntk-e",
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
    rows = collect_rows(representation, potential, len(sets), normalise=normalise)
    ends = np.cumsum([0, *(len(structures) for structures in sets)])
    joined = (atoms for structures in sets for atoms in structures)
    n_done = 0
    for chunk in iter_features(
        joined, potential, representation, batch_atoms=batch_atoms, progress=progress
    ):
        cuts = np.clip(ends - n_done, 0, len(chunk))
        for number, (start, stop) in enumerate(pairwise(cuts.tolist())):
            if start < stop:
                finite = rows.add(number, chunk[start:stop])
                if not finite.all():
                    place = n_done + start - ends[number] + int(np.argmin(finite))
                    raise StructureError(
                        f"structure {place} of set {number} has {representation.name} features "
                        "that are not finite, perhaps because atoms nearly coincide; set it aside"
                    )
        n_done += len(chunk)
    return rows.to_kernels()


class RowCollector(ABC):
    """Rows of several sets, taken in chunk by chunk in the form that their kernel needs."""

    @abstractmethod
    def add(self, number: int, chunk: Chunk) -> Bool[np.ndarray, " b"]:
        """Take in rows of a set; return which are finite. Others are left out."""

    @abstractmethod
    def to_kernels(self) -> tuple[Kernel, ...]:
        """Return one kernel a set and let the rows go; to be called once."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Length of a row; of sparse rows, the columns in use so far."""


def collect_rows(
    representation: Representation,
    potential: Potential | None,
    n_sets: int,
    *,
    normalise: str = "cosine",
) -> RowCollector:
    """Return what collects the rows of a representation and makes kernels of them.

    Args:
        representation: Where the rows come from.
        potential: The model, if it needs one.
        n_sets: Sets of structures.
        normalise: ``cosine`` or ``none``, see ``normalise_rows``.

    Raises:
        ArgumentError: An unknown ``normalise``, or ``none`` with a Tanimoto kernel.
    """
    check_kernel(representation, normalise)
    size = feature_size(representation, potential)
    if representation.kernel == "tanimoto":
        return _BitCollector(n_sets, size)
    if isinstance(representation, StructureRepresentation) and representation.column_block:
        return _SparseCollector(n_sets, size, representation.column_block, normalise)
    return _DenseCollector(n_sets, feature_blocks(representation, potential), normalise)


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


class _DenseCollector(RowCollector):
    """Rows with a number in every column, for a ``LinearKernel``."""

    def __init__(self, n_sets: int, blocks: Sequence[FeatureBlock], normalise: str) -> None:
        self._sets: list[list[Float32[np.ndarray, "_ d"]]] = [[] for _ in range(n_sets)]
        self._blocks = blocks
        self._normalise = normalise

    @property
    def n_features(self) -> int:
        return sum(block.size for block in self._blocks)

    def add(self, number: int, chunk: Chunk) -> Bool[np.ndarray, " b"]:
        assert isinstance(chunk, np.ndarray)  # noqa: S101  (column_block says so)
        finite = is_finite(chunk)
        self._sets[number].append(chunk if finite.all() else chunk[finite])
        return finite

    def to_kernels(self) -> tuple[Kernel, ...]:
        lengths = [sum(len(part) for part in parts) for parts in self._sets]
        empty = np.zeros((0, self.n_features), dtype=np.float32)
        rows = np.concatenate([empty, *(part for parts in self._sets for part in parts)])
        self._sets.clear()
        normalise_rows(empty, rows, self._blocks, normalise=self._normalise)
        return _linear_kernels(rows, lengths)


class _BitCollector(RowCollector):
    """Rows of zeros and ones, for a ``TanimotoKernel``, held as bits."""

    def __init__(self, n_sets: int, n_bits: int) -> None:
        n_bytes = (n_bits + 7) // 8
        self._sets: list[list[UInt8[np.ndarray, "_ b"]]] = [
            [np.zeros((0, n_bytes), dtype=np.uint8)] for _ in range(n_sets)
        ]
        self._n_bits = n_bits

    @property
    def n_features(self) -> int:
        return self._n_bits

    def add(self, number: int, chunk: Chunk) -> Bool[np.ndarray, " b"]:
        assert isinstance(chunk, np.ndarray)  # noqa: S101  (column_block says so)
        finite = is_finite(chunk)
        self._sets[number].append(pack_bits(chunk[finite]))
        return finite

    def to_kernels(self) -> tuple[Kernel, ...]:
        packed = [np.concatenate(parts) for parts in self._sets]
        self._sets.clear()
        return tuple(TanimotoKernel.from_packed(part, self._n_bits) for part in packed)


class _SparseCollector(RowCollector):
    """Sparse rows, for a ``LinearKernel`` if few columns are in use, else for a sparse one."""

    def __init__(self, n_sets: int, width: int, column_block: int, normalise: str) -> None:
        self._sets: list[list[SparseRows]] = [[] for _ in range(n_sets)]
        self._used = np.zeros(width, dtype=bool)
        self._column_block = column_block
        self._normalise = normalise

    @property
    def n_features(self) -> int:
        return int(self._used.sum())

    def add(self, number: int, chunk: Chunk) -> Bool[np.ndarray, " b"]:
        assert isinstance(chunk, SparseRows)  # noqa: S101  (column_block says so)
        finite = chunk.is_finite()
        kept = chunk if finite.all() else chunk[finite]
        self._used[kept.matrix.indices] = True
        self._sets[number].append(kept)
        return finite

    def to_kernels(self) -> tuple[Kernel, ...]:
        sets = [parts.copy() for parts in self._sets]
        self._sets.clear()
        _normalise_sparse(sets, self._normalise)
        columns = np.flatnonzero(self._used).astype(np.int64)
        if len(columns) <= MOST_DENSE_COLUMNS:
            return _dense_kernels(sets, columns)
        kernels = []
        for parts in sets:
            joined = join_sparse(parts, len(self._used))
            parts.clear()
            kernels.append(SparseLinearKernel(joined, column_block=self._column_block))
        return tuple(kernels)


def _dense_kernels(
    sets: Sequence[list[SparseRows]], columns: Int64[np.ndarray, " u"]
) -> tuple[LinearKernel, ...]:
    """Return one kernel a set of the columns in use; sparse rows are let go one by one."""
    lengths = [sum(len(part) for part in parts) for parts in sets]
    rows = np.zeros((sum(lengths), max(1, len(columns))), dtype=np.float32)
    n_done = 0
    for parts in sets:
        while parts:
            part = parts.pop(0)
            rows[n_done : n_done + len(part), : len(columns)] = part.to_dense(columns)
            n_done += len(part)
    return _linear_kernels(rows, lengths)


def _linear_kernels(
    rows: Float32[np.ndarray, "n d"], lengths: Sequence[int]
) -> tuple[LinearKernel, ...]:
    """Return one kernel a set, of rows that are normalised already and not copied."""
    parts = np.split(rows, np.cumsum(lengths)[:-1])
    return tuple(LinearKernel(part, normalise="none") for part in parts)


def _normalise_sparse(sets: Sequence[list[SparseRows]], normalise: str) -> None:
    """Put scaled rows in place of all rows, as ``normalise_rows`` with one block of weight one."""
    squares = [[_square_norms(part) for part in parts] for parts in sets]
    every = [square for each in squares for square in each]
    n_rows = sum(len(square) for square in every)
    common = math.sqrt(sum(float(square.sum()) for square in every) / max(1, n_rows))
    for parts, norms in zip(sets, squares, strict=True):
        for place, (part, square) in enumerate(zip(parts, norms, strict=True)):
            norm = np.sqrt(square) if normalise == "cosine" else np.full(len(part), common)
            parts[place] = part.scale(1.0 / np.maximum(norm, _NORM_FLOOR))


def _square_norms(rows: SparseRows) -> np.ndarray:
    """Return ‖φ‖², (n,) float64."""
    row_of_entry = np.repeat(np.arange(len(rows)), np.diff(rows.matrix.indptr))
    squares = np.square(rows.matrix.data, dtype=np.float64)
    sums: np.ndarray = np.bincount(row_of_entry, weights=squares, minlength=len(rows))
    return sums
