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
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int64
from scipy.sparse import csr_array

from labelwise.errors import ReadError, StructureError, WriteError
from labelwise.features.fill import Filler, RowRecipe
from labelwise.features.frames import FrameTable
from labelwise.features.options import KernelOptions
from labelwise.features.representations import (
    Chunk,
    Representation,
    SparseRows,
    make_representation,
)
from labelwise.features.representations.rows import MOST_DENSE_COLUMNS
from labelwise.features.store.memory import MemoryRows
from labelwise.potentials.base import Potential
from labelwise.runtime.engines import Engine
from labelwise.runtime.files import write_bytes, write_text
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures import Frame, Screened

DEFAULT_CHUNK = 1000
_FORMAT = 2


def write_features(
    path: Path,
    frames: Iterable[Frame],
    potential: Potential | None,
    *,
    metadata: Mapping[str, Any],
    representation: str | Representation = KernelOptions.representation,
    batch_atoms: int | None = None,
    max_atoms: int | None = None,
    chunk_size: int = DEFAULT_CHUNK,
    remarks: Counter[str] | None = None,
    engine: Engine | None = None,
    progress: ProgressCallback = ignore_progress,
) -> tuple[int, list[Screened]]:
    """Compute the features of a stream of structures into a file, resuming if possible.

    Structures that the model cannot take, or gives features that are not finite for, are
    left out; duplicates stay. The file holds ``features`` (n, d) float32 as the representation
    gives them, ``index`` among all that were read, ``source_file``, ``source_frame``, and
    ``metadata`` as JSON; of rows that were sparse ``columns`` and ``column_names`` (d,), and of
    those that stay sparse ``sparse_values``, ``_columns``, ``_starts`` and ``_shape`` in place of
    features.

    Args:
        path: The ``.npz`` file to write.
        frames: The structures, the same and in the same order on every run.
        potential: The model; None when the representation needs none.
        metadata: Plain data that identify the run. Chunks of an earlier run are used
            when theirs are equal.
        representation: The thing itself, or the name of a registered one with default options.
        batch_atoms: Atoms evaluated at once.
        max_atoms: Structures of more atoms are left out; None for as many as memory allows.
        chunk_size: Structures read between two saves.
        remarks: Where the representation's remarks are counted.
        engine: Where rows are computed; None for this process.
        progress: Called with stage, done, total.

    Returns:
        The number of rows and the structures left out.

    Raises:
        WriteError: The target cannot be written, or a folder of another run is in the way.
        ReadError: A structure cannot be read, or a saved chunk is damaged.
        PotentialError: The model fails on a structure.
    """
    chosen = (
        make_representation(representation) if isinstance(representation, str) else representation
    )
    folder = path.with_name(f"{path.name}.part")
    _open_folder(folder, {**metadata, "chunk_size": chunk_size, "format": _FORMAT})
    rows = _SavedRows(folder, chosen, potential)
    n_saved = chunk_size * rows.n_chunks

    def report(_stage: str, n_done: int, n_total: int | None) -> None:
        progress("resume" if n_done <= n_saved else "represent", n_done, n_total)

    recipe = RowRecipe(lambda: chosen, batch_atoms=batch_atoms, max_atoms=max_atoms)
    filler = Filler(recipe, rows, potential, engine=engine, lot_frames=chunk_size, progress=report)
    table = filler.fill(frames, "pool")
    if remarks is not None:
        remarks.update(table.count_remarks())
    kept = np.flatnonzero(table.usable())
    if len(kept) == 0:
        raise StructureError("no structure passed the screen: there is nothing to represent")
    arrays = {
        "index": table.indices[kept],
        "source_file": np.array(table.files, dtype=np.str_)[table.file_idx[kept]],
        "source_frame": table.frames[kept],
        **_joined_features(rows, rows.find(table.keys[kept])),
        "metadata": np.array(json.dumps(dict(metadata))),
    }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_bytes(path, content.getvalue())
    shutil.rmtree(folder)
    return len(kept), table.list_screened("pool")


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


class _SavedRows(MemoryRows):
    """Rows in memory of which each lot is written to a folder, too; begins with what is there."""

    takes_lots = True

    def __init__(
        self, folder: Path, representation: Representation, potential: Potential | None
    ) -> None:
        super().__init__(representation, potential)
        self._folder = folder
        self.n_chunks = 0
        while self._next_chunk.exists():
            try:
                with np.load(self._next_chunk, allow_pickle=False) as archive:
                    self.append_named(archive["keys"], _features_in(archive))
            except (OSError, ValueError, KeyError, BadZipFile) as error:
                raise ReadError(
                    f"{self._next_chunk} is damaged ({error}); remove it and run again"
                ) from error
            self.n_chunks += 1

    def append(self, frames: FrameTable, rows: Chunk) -> None:
        """Write a lot of rows, and take them in."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, keys=frames.keys, **_arrays(rows))
        write_bytes(self._next_chunk, content.getvalue())
        self.n_chunks += 1
        super().append(frames, rows)

    @property
    def _next_chunk(self) -> Path:
        return self._folder / f"chunk_{self.n_chunks:06d}.npz"


def _arrays(rows: Chunk) -> dict[str, np.ndarray]:
    """Return rows as arrays: ``features``, or the entries, columns and starts of sparse ones."""
    if not isinstance(rows, SparseRows):
        return {"features": np.asarray(rows, dtype=np.float32)}
    return {
        "sparse_values": rows.matrix.data,
        "sparse_columns": rows.matrix.indices,
        "sparse_starts": rows.matrix.indptr,
        "sparse_shape": np.array(rows.matrix.shape, dtype=np.int64),
    }


def _features_in(archive: Mapping[str, np.ndarray]) -> Chunk:
    """Return the rows of what ``_arrays`` returned."""
    if "sparse_values" not in archive:
        return archive["features"]
    values, columns, starts, shape = (
        archive[f"sparse_{name}"] for name in ("values", "columns", "starts", "shape")
    )
    return SparseRows(csr_array((values, columns, starts), shape=tuple(shape.tolist())))


def _joined_features(saved: MemoryRows, places: Int64[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """Return rows as arrays; sparse ones as dense ones, unless very many columns are used."""
    rows, representation = saved.take(places), saved.representation
    if representation.kernel == "tanimoto" and not isinstance(rows, SparseRows):
        return {"features": np.unpackbits(rows, axis=1, count=saved.width).astype(np.float32)}
    if not isinstance(rows, SparseRows):
        return _arrays(rows)
    columns = rows.used_columns()
    if len(columns) > MOST_DENSE_COLUMNS:
        return _arrays(rows)
    column_names = np.array(representation.name_columns(columns), dtype=np.str_)
    return {
        "features": rows.to_dense(columns),
        "columns": columns,
        "column_names": column_names,
    }
