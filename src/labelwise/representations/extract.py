"""From structures to a matrix of features, at once or as a stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
from ase import Atoms
from jaxtyping import Float32

from labelwise.errors import ArgumentError, StructureError
from labelwise.potentials.base import Potential
from labelwise.potentials.batching import map_batches
from labelwise.representations.base import (
    FeatureBlock,
    ModelRepresentation,
    Representation,
    RepresentationOptions,
    StructureRepresentation,
    make_representation,
)

_CHUNK_STRUCTURES = 256

Rows = Float32[np.ndarray, "n d"]


def represent(
    structures: Iterable[Atoms],
    potential: Potential | None = None,
    representation: str | Representation = "ntk-e",
    *,
    options: RepresentationOptions | None = None,
    batch_atoms: int | None = None,
    workers: int = 0,
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
        workers: Processes that build neighbour lists ahead; 0 builds them here.
        progress: Called with the number of structures finished so far.

    Returns:
        (n, d) float32, in the order of the structures, not normalised. No structures give
        (0, d).

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
        workers=workers,
        progress=progress,
    )
    chunks = _finite(chunks, chosen.name)
    empty = np.empty((0, feature_size(chosen, potential)), dtype=np.float32)
    return np.concatenate([empty, *chunks])


def iter_features(
    structures: Iterable[Atoms],
    potential: Potential | None = None,
    representation: str | Representation = "ntk-e",
    *,
    options: RepresentationOptions | None = None,
    batch_atoms: int | None = None,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Rows]:
    """Compute the features of a stream of structures, a batch at a time in bounded memory.

    Arguments and errors are those of ``represent``, except that rows that are not finite are
    left for the caller to see; wrong arguments raise at once, not at the first chunk.

    Returns:
        Chunks (b, d) float32 in the order of the structures.
    """
    chosen = _resolve(representation, options, potential)
    if isinstance(chosen, StructureRepresentation):
        chunks = _structure_features(chosen, structures, progress)
    else:
        if potential is None:
            raise ArgumentError(f"representation {chosen.name!r} needs a potential; give one")
        chunks = (
            rows.float().numpy()
            for rows in map_batches(
                potential,
                structures,
                partial(chosen.compute, potential),
                batch_atoms=batch_atoms,
                workers=workers,
                progress=progress,
            )
        )
    return iter(chunks)


def feature_size(representation: Representation, potential: Potential | None) -> int:
    """Return d, the length of a row.

    Raises:
        ArgumentError: no potential where one is needed.
    """
    if isinstance(representation, StructureRepresentation):
        return representation.size()
    if potential is None:
        raise ArgumentError(f"representation {representation.name!r} needs a potential; give one")
    return representation.size(potential)


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
    if isinstance(representation, ModelRepresentation) and potential is None:
        raise ArgumentError(f"representation {representation.name!r} needs a potential; give one")
    return representation


def _structure_features(
    representation: StructureRepresentation,
    structures: Iterable[Atoms],
    progress: Callable[[int], None] | None,
) -> Iterator[Rows]:
    stream = iter(structures)
    n_done = 0
    while chunk := list(itertools.islice(stream, _CHUNK_STRUCTURES)):
        yield representation.compute(chunk)
        n_done += len(chunk)
        if progress is not None:
            progress(n_done)


def _finite(chunks: Iterable[Rows], name: str) -> Iterator[Rows]:
    place = 0
    for rows in chunks:
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise StructureError(
                f"structure {place + int(np.argmin(finite))} has {name} features that are not "
                "finite, perhaps because atoms nearly coincide; set it aside"
            )
        place += len(rows)
        yield rows
