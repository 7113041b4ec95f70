"""From structures to a matrix of features, at once or as a stream."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import length_hint
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float32

from labelwise.errors import ArgumentError, StructureError
from labelwise.features.options import KernelOptions
from labelwise.features.representations.base import (
    FeatureBlock,
    ModelRepresentation,
    Representation,
    RepresentationOptions,
    StructureRepresentation,
    make_representation,
)
from labelwise.features.representations.joint_rows import JointRows
from labelwise.features.representations.row_sets import RowSets
from labelwise.features.representations.rows import SparseRows, join_sparse
from labelwise.potentials.base import Potential
from labelwise.potentials.batching import build_graphs, check_batch_atoms, map_graphs
from labelwise.potentials.graphs import Graph
from labelwise.potentials.size_limit import SizeLimit
from labelwise.runtime.engines import Engine, LocalEngine, Ready

_CHUNK_STRUCTURES = 256

Rows = Float32[np.ndarray, "n d"]
Chunk = Float32[np.ndarray, "_ _"] | SparseRows


def represent(
    structures: Iterable[Atoms],
    potential: Potential | None = None,
    representation: str | Representation = KernelOptions.representation,
    *,
    options: RepresentationOptions | None = None,
    batch_atoms: int | None = None,
    engine: Engine | None = None,
    progress: Callable[[int], None] | None = None,
) -> Rows:
    """Compute the features of structures.

    Args:
        structures: n structures; read once, not modified.
        potential: Where the features come from; None for representations without a model.
        representation: A registered name (``list_representations()``), or the thing itself, to
            which ``options`` do not apply.
        options: Of a representation given by name; None for the defaults.
        batch_atoms: Atoms per batch; by default what measured best for the device. Results
            do not depend on it, but for rounding.
        engine: Where they are computed; None for this process.
        progress: Called with the number of structures finished so far.

    Returns:
        (n, d) float32, in the order of the structures, not normalised. No structures give
        (0, d). Of sparse rows (``soap``), the columns in which some structure has an entry.

    Raises:
        ArgumentError: unknown representation or block, an option out of range, or no potential
            where one is needed.
        StructureError: a structure that the potential cannot take or that gives features that
            are not finite, with its place.
        OutOfMemoryError: one structure alone does not fit, with its place.
    """
    chosen = _resolve(representation, options, potential)
    chunks = iter_features(
        structures,
        potential,
        chosen,
        batch_atoms=batch_atoms,
        engine=engine,
        progress=progress,
    )
    size = feature_size(chosen, potential)
    return join_rows([np.empty((0, size), dtype=np.float32), *_finite(chunks, chosen.name)])


def join_chunks(chunks: Sequence[Chunk]) -> Chunk:
    """Put chunks of one kind, at least one, behind one another."""
    sparse = [chunk for chunk in chunks if isinstance(chunk, SparseRows)]
    if sparse:
        return join_sparse(sparse, sparse[0].shape[1])
    return np.concatenate([chunk for chunk in chunks if isinstance(chunk, np.ndarray)])


def join_rows(
    chunks: Sequence[Float32[np.ndarray, "_ d"] | SparseRows],
) -> Float32[np.ndarray, "n columns"]:
    """Join chunks, at least one, into dense rows: (n, d), of sparse ones the columns in use."""
    sparse = [chunk for chunk in chunks if isinstance(chunk, SparseRows)]
    joined = join_chunks(sparse or chunks)
    if isinstance(joined, SparseRows):
        return joined.to_dense(joined.used_columns())
    return joined


def iter_features(
    structures: Iterable[Atoms],
    potential: Potential | None = None,
    representation: str | Representation = KernelOptions.representation,
    *,
    options: RepresentationOptions | None = None,
    batch_atoms: int | None = None,
    engine: Engine | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Chunk]:
    """Compute the features of a stream of structures, a batch at a time in bounded memory.

    Arguments and errors are those of ``represent``, except that rows that are not finite are
    left for the caller to see; wrong arguments raise at once, not at the first chunk.

    Returns:
        Chunks (b, d) float32 in the order of the structures; ``SparseRows`` of a representation
        with a ``column_block``.
    """
    chosen = _resolve(representation, options, potential)
    check_batch_atoms(batch_atoms)
    items: Iterable[Graph | Atoms] = structures
    if potential is not None and isinstance(chosen, ModelRepresentation):
        chosen.size(potential)  # a block that the model does not have is refused here
        ahead = None if potential.device.type == "cpu" else engine
        items = build_graphs(potential.graph_builder, structures, engine=ahead)
    return iter_rows(
        items,
        potential,
        chosen,
        batch_atoms=batch_atoms,
        engine=engine,
        n_items=length_hint(structures, 0),
        progress=progress,
    )


def iter_rows(
    items: Iterable[Any],
    potential: Potential | None,
    kind: Representation | JointRows | None,
    *,
    batch_atoms: int | None = None,
    engine: Engine | None = None,
    n_items: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Any]:
    """Compute the rows of structures that are prepared, a batch at a time.

    Args:
        items: Graphs where there is a model, else structures; read once.
        potential: The model, if one is needed.
        kind: What is computed. None computes nothing, and reads on.
        batch_atoms: Atoms per batch.
        engine: Where rows are computed; None for this process.
        n_items: How many there are, for the engine's estimate; 0 where that is not known.
        progress: Called with the number of structures finished so far.

    Returns:
        As of ``iter_features``; of ``JointRows`` row sets.
    """
    if isinstance(kind, StructureRepresentation):
        return _structure_features(kind, items, engine, progress)
    if kind is None or potential is None:
        deque(items, maxlen=0)
        return iter(())
    if isinstance(kind, JointRows):
        return kind.iter_graphs(
            items, potential, batch_atoms=batch_atoms, engine=engine, progress=progress
        )
    assert isinstance(kind, ModelRepresentation)  # noqa: S101  (the other kind)
    rows = map_graphs(
        potential,
        items,
        partial(kind.compute, potential),
        batch_atoms=batch_atoms,
        engine=engine,
        n_graphs=n_items,
        progress=progress,
    )
    return (part.float().numpy() for part in rows)


def make_size_limit(
    potential: Potential | None,
    representation: Representation | JointRows | None,
    *,
    max_atoms: int | None = None,
    memory_bytes: int | None = None,
) -> SizeLimit:
    """Return what tells which structures are too large to be represented.

    Args:
        potential: The model; None where none is run.
        representation: What is computed with it; None where nothing is.
        max_atoms: The most atoms a structure may have; None for any number.
        memory_bytes: What the process may occupy in all; None for all that is free.
    """
    compute = None
    if potential is not None and isinstance(representation, ModelRepresentation | JointRows):
        compute = partial(representation.compute, potential)
    return SizeLimit(potential, compute, max_atoms=max_atoms, memory_bytes=memory_bytes)


def feature_size(representation: Representation | JointRows, potential: Potential | None) -> int:
    """Return d, the length of a row.

    Raises:
        ArgumentError: no potential where one is needed.
    """
    if isinstance(representation, StructureRepresentation):
        return representation.size()
    if potential is None:
        raise ArgumentError(f"representation {representation.name!r} needs a potential; give one")
    assert isinstance(representation, ModelRepresentation | JointRows)  # noqa: S101  (two kinds)
    return representation.size(potential)


def is_finite(chunk: Chunk | RowSets) -> Bool[np.ndarray, " n"]:
    """Tell which rows of a chunk hold finite numbers only."""
    if isinstance(chunk, np.ndarray):
        return np.asarray(np.isfinite(chunk).all(axis=1))
    return np.asarray(chunk.is_finite())


def feature_blocks(
    representation: Representation, potential: Potential | None
) -> tuple[FeatureBlock, ...]:
    """Return the parts of a row that are normalised on their own; most have one.

    Raises:
        ArgumentError: no potential where one is needed.
    """
    if isinstance(representation, ModelRepresentation) and potential is not None:
        return representation.blocks(potential)
    return (FeatureBlock(feature_size(representation, potential)),)


def _resolve(
    representation: str | Representation,
    options: RepresentationOptions | None,
    potential: Potential | None,
) -> Representation:
    if isinstance(representation, str):
        representation = make_representation(representation, options)
    if representation.needs_model and potential is None:
        raise ArgumentError(f"representation {representation.name!r} needs a potential; give one")
    return representation


def _structure_features(
    representation: StructureRepresentation,
    structures: Iterable[Atoms],
    engine: Engine | None,
    progress: Callable[[int], None] | None,
) -> Iterator[Chunk]:
    stream = iter(structures)
    n_done = 0
    engine = LocalEngine() if engine is None else engine
    for chunk in engine.map(
        Ready(representation),
        _compute,
        iter(lambda: list(itertools.islice(stream, _CHUNK_STRUCTURES)), []),
    ):
        yield chunk
        n_done += chunk.shape[0]
        if progress is not None:
            progress(n_done)


def _compute(representation: StructureRepresentation, structures: list[Atoms]) -> Chunk:
    return representation.compute(structures)


def _finite(chunks: Iterable[Chunk], name: str) -> Iterator[Chunk]:
    place = 0
    for rows in chunks:
        finite = is_finite(rows)
        if not finite.all():
            raise StructureError(
                f"structure {place + int(np.argmin(finite))} has {name} features that are not "
                "finite, perhaps because atoms nearly coincide; set it aside"
            )
        place += len(rows)
        yield rows
