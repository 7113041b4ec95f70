"""Features of many structures in one file, computed in chunks that survive a kill.

While the work goes on, finished chunks lie in a folder beside the target, each written
in one step; the next run with the same settings goes on behind the last one. At the
end they become one ``.npz`` file and the folder is removed.

Sparse rows (``soap``) become dense at the end, over the columns in which some structure has an
entry; ``columns`` and ``column_names`` say which. If these are more than ``MOST_DENSE_COLUMNS``,
they stay sparse.
"""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32, Int64
from scipy.sparse import csr_array

from labelwise.errors import ReadError, StructureError, WriteError
from labelwise.features.representations import (
    Chunk,
    Representation,
    RepresentationOptions,
    SparseRows,
    StructureRepresentation,
    is_finite,
    iter_features,
    iter_remarked,
    join_sparse,
    make_representation,
    make_size_limit,
)
from labelwise.features.representations.rows import MOST_DENSE_COLUMNS
from labelwise.potentials.base import Potential
from labelwise.runtime.files import write_bytes, write_text
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures import Frame, Screen, Screened
from labelwise.structures.screening import NON_FINITE, NON_FINITE_DETAIL

DEFAULT_CHUNK = 1000


@dataclass(frozen=True)
class FeatureFile:
    """Features as read from a file.

    Attributes:
        features: (n, d) float32, one row a structure, as the representation gives them; sparse
            only if very many columns are in use.
        index: (n,) int64, each structure's place among all that were read.
        source_file: (n,) str, the file it came from.
        source_frame: (n,) int64, its frame in that file.
        metadata: Representation, model hash, versions and inputs.
        columns: (d,) int64, of rows that were sparse: each column's number in their layout.
        column_names: (d,) str, of rows that were sparse: each column's name.
    """

    features: Float32[np.ndarray, "n d"] | SparseRows
    index: Int64[np.ndarray, " n"]
    source_file: np.ndarray
    source_frame: Int64[np.ndarray, " n"]
    metadata: dict[str, Any]
    columns: Int64[np.ndarray, " d"] | None = None
    column_names: np.ndarray | None = None


def write_features(
    path: Path,
    frames: Iterable[Frame],
    potential: Potential | None,
    *,
    metadata: Mapping[str, Any],
    representation: str | Representation = "ntk-e",
    options: RepresentationOptions | None = None,
    batch_atoms: int | None = None,
    max_atoms: int | None = None,
    chunk_size: int = DEFAULT_CHUNK,
    remarks: Counter[str] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> tuple[int, list[Screened]]:
    """Compute the features of a stream of structures into a file, resuming if possible.

    Structures that the model cannot take, or gives features that are not finite for, are
    left out; duplicates stay.

    Args:
        path: The ``.npz`` file to write.
        frames: The structures, the same and in the same order on every run.
        potential: The model; None when the representation needs none.
        metadata: Plain data that identify the run. Chunks of an earlier run are used
            when theirs are equal.
        representation: A registered representation, or the thing itself, to which ``options``
            do not apply.
        options: Of a representation given by name; None for the defaults.
        batch_atoms: Atoms evaluated at once.
        max_atoms: Structures of more atoms are left out; None for as many as memory allows.
        chunk_size: Structures read between two saves.
        remarks: Where the representation's remarks are counted; those on chunks of an earlier
            run are not.
        progress: Called with stage, done, total.

    Returns:
        The number of rows and the structures left out.

    Raises:
        WriteError: The target cannot be written, or a folder of another run is in the way.
        ReadError: A structure cannot be read, or a saved chunk is damaged.
        PotentialError: The model fails on a structure.
    """
    chosen = (
        make_representation(representation, options)
        if isinstance(representation, str)
        else representation
    )
    counts: Counter[str] = Counter() if remarks is None else remarks
    folder = path.with_name(f"{path.name}.part")
    _open_folder(folder, {**metadata, "chunk_size": chunk_size})
    screen = Screen(
        None if potential is None else potential.graph_builder,
        size_limit=make_size_limit(potential, chosen, max_atoms=max_atoms),
    )
    screened: list[Screened] = []
    stream = iter(frames)
    n_read = 0
    for _ in range(_count_chunks(folder)):
        n_read += len([_passes(frame, screen, screened) for frame in islice(stream, chunk_size)])
        progress("resume", n_read, None)
    while batch := list(islice(stream, chunk_size)):
        kept = [frame for frame in batch if _passes(frame, screen, screened)]
        structures = (frame.atoms for frame in kept)
        rows = iter_features(
            iter_remarked(structures, chosen, counts), potential, chosen, batch_atoms=batch_atoms
        )
        screened += _save_chunk(folder, kept, rows)
        n_read += len(batch)
        progress("represent", n_read, None)
    n_rows = _join(folder, path, metadata, chosen)
    shutil.rmtree(folder)
    return n_rows, screened


def read_features(path: Path) -> FeatureFile:
    """Read what ``write_features`` wrote.

    Args:
        path: The ``.npz`` file.

    Raises:
        ReadError: The file is missing, damaged or not a feature file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return FeatureFile(
                _features_in(archive),
                archive["index"],
                archive["source_file"],
                archive["source_frame"],
                json.loads(str(archive["metadata"])),
                archive.get("columns"),
                archive.get("column_names"),
            )
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ReadError(f"{path} is not a readable feature file ({error})") from error


def _passes(frame: Frame, screen: Screen, screened: list[Screened]) -> bool:
    found = screen.check_content(frame)
    if found is not None:
        screened.append(found)
    return found is None


def _open_folder(folder: Path, metadata: dict[str, Any]) -> None:
    """Make the folder of chunks, or check that the one there belongs to this run."""
    manifest = folder / "manifest.json"
    if not folder.exists():
        write_text(manifest, json.dumps(metadata, indent=1))
        return
    try:
        earlier = json.loads(manifest.read_text())
    except (OSError, ValueError) as error:
        raise WriteError(f"{folder} is in the way and holds no manifest; remove it") from error
    changed = sorted(key for key in {*earlier, *metadata} if earlier.get(key) != metadata.get(key))
    if changed:
        raise WriteError(
            f"{folder} holds the beginning of another run (different: {', '.join(changed)}); "
            "remove it, or choose another --out"
        )


def _count_chunks(folder: Path) -> int:
    """Count the finished chunks that follow one another from the first."""
    number = 0
    while _chunk_path(folder, number).exists():
        number += 1
    return number


def _chunk_path(folder: Path, number: int) -> Path:
    return folder / f"chunk_{number:06d}.npz"


def _save_chunk(folder: Path, kept: list[Frame], rows: Iterable[Chunk]) -> list[Screened]:
    """Write the finite rows of a chunk and return the structures of the others."""
    parts = list(rows)
    masks = [is_finite(part) for part in parts]
    finite = [bool(each) for mask in masks for each in mask]
    broken = [
        Screened("pool", frame.index, frame.source, NON_FINITE, NON_FINITE_DETAIL)
        for frame, is_fine in zip(kept, finite, strict=True)
        if not is_fine
    ]
    kept = [frame for frame, is_fine in zip(kept, finite, strict=True) if is_fine]
    content = io.BytesIO()
    arrays = {
        **_arrays([part[mask] for part, mask in zip(parts, masks, strict=True)]),
        "index": np.array([frame.index for frame in kept], dtype=np.int64),
        "source_file": np.array([frame.source.file for frame in kept], dtype=np.str_),
        "source_frame": np.array([frame.source.frame for frame in kept], dtype=np.int64),
    }
    np.savez(content, allow_pickle=False, **arrays)
    write_bytes(_chunk_path(folder, _count_chunks(folder)), content.getvalue())
    return broken


def _arrays(parts: list[Chunk]) -> dict[str, np.ndarray]:
    """Return rows as arrays: ``features``, or the entries, columns and starts of sparse ones."""
    sparse = [part for part in parts if isinstance(part, SparseRows)]
    if not sparse:
        dense = [np.asarray(part, dtype=np.float32) for part in parts]
        return {"features": np.concatenate(dense) if dense else np.zeros((0, 0), np.float32)}
    matrix = join_sparse(sparse, sparse[0].shape[1]).matrix
    return {
        "sparse_values": matrix.data,
        "sparse_columns": matrix.indices,
        "sparse_starts": matrix.indptr,
        "sparse_shape": np.array(matrix.shape, dtype=np.int64),
    }


def _features_in(archive: Mapping[str, np.ndarray]) -> Chunk:
    """Return the rows of what ``_arrays`` returned."""
    if "sparse_values" not in archive:
        return archive["features"]
    values, columns, starts, shape = (
        archive[f"sparse_{name}"] for name in ("values", "columns", "starts", "shape")
    )
    return SparseRows(csr_array((values, columns, starts), shape=tuple(shape.tolist())))


def _join(
    folder: Path, path: Path, metadata: Mapping[str, Any], representation: Representation
) -> int:
    """Write the chunks as one file and return the number of rows."""
    names = ("index", "source_file", "source_frame")
    chunks: dict[str, list[np.ndarray]] = {name: [] for name in names}
    features: list[Chunk] = []
    for number in range(_count_chunks(folder)):
        chunk = _chunk_path(folder, number)
        try:
            with np.load(chunk, allow_pickle=False) as archive:
                if len(archive["index"]):
                    features.append(_features_in(archive))
                    for name, parts in chunks.items():
                        parts.append(archive[name])
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise ReadError(f"{chunk} is damaged ({error}); remove it and run again") from error
    if not features:
        raise StructureError("no structure passed the screen: there is nothing to represent")
    content = io.BytesIO()
    joined = {name: np.concatenate(parts) for name, parts in chunks.items()}
    joined |= _joined_features(features, representation)
    joined["metadata"] = np.array(json.dumps(dict(metadata)))
    np.savez(content, allow_pickle=False, **joined)
    write_bytes(path, content.getvalue())
    return len(joined["index"])


def _joined_features(
    features: list[Chunk], representation: Representation
) -> dict[str, np.ndarray]:
    """Return all rows as arrays; sparse ones as dense ones, unless very many columns are used."""
    arrays = _arrays(features)
    rows = _features_in(arrays)
    if not isinstance(rows, SparseRows) or not isinstance(representation, StructureRepresentation):
        return arrays
    columns = rows.used_columns()
    if len(columns) > MOST_DENSE_COLUMNS:
        return arrays
    column_names = np.array(representation.name_columns(columns), dtype=np.str_)
    return {
        "features": rows.to_dense(columns),
        "columns": columns,
        "column_names": column_names,
    }
