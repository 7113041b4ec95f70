"""Which structures are put into the page, the most interesting first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from jaxtyping import Int32, Int64

from labelwise.pages.document import StructureSet
from labelwise.selection.measures import Measures, Shown
from labelwise.selection.page.picked import Picked
from labelwise.selection.page.reasons import atom_stds
from labelwise.selection.page.shelves import Shelved
from labelwise.selection.page.structure_packing import StructurePacker
from labelwise.structures import read_sources

#: Shortlisted structures that are read once more because the first reading did not keep them.
MOST_READ_AGAIN = 2000
ATOM_LABEL = "predicted force error / meV Å⁻¹"


def pack_structures(
    picked: Picked, *, max_bytes: int, seed: int
) -> tuple[StructureSet | None, Int32[np.ndarray, " p"]]:
    """Pack picks, their nearest labelled structures, labelled, shortlisted and other ones.

    Args:
        picked: What is known of the picks; with a map, only structures on it are packed.
        max_bytes: Room for atoms; picks and their nearest neighbours are packed anyhow.
        seed: Of the order of the other ones.

    Returns:
        The structures, and the place of each point's among them, -1 for those left out; empty
        without a map.

    Raises:
        ReadError: A file has changed meanwhile.
    """
    packer = StructurePacker(max_bytes=max_bytes)
    for rank, atoms in enumerate(picked.chosen):
        packer.add(picked.name(rank), atoms, atom_values=atom_stds(atoms), must_fit=True)
    shown, measures = picked.shown, picked.measures
    if shown is None or measures is None:
        return packer.pack(atom_label=ATOM_LABEL), np.zeros(0, dtype=np.int32)
    _add_nearest(packer, picked, measures.nearest[picked.rows])
    _add(packer, picked, picked.train, shown.train)
    for row, atoms in _iter_shortlisted(picked.pool, shown, measures):
        packer.add(picked.names.of(picked.pool, row), atoms)
    shuffled = np.random.default_rng(seed).permutation(shown.pool)
    _add(packer, picked, picked.pool, shuffled)
    places = [
        *(packer.find(picked.names.of(picked.pool, row)) for row in shown.pool.tolist()),
        *(packer.find(picked.names.of(picked.train, row)) for row in shown.train.tolist()),
    ]
    return packer.pack(atom_label=ATOM_LABEL), np.array(places, dtype=np.int32)


def _add(
    packer: StructurePacker,
    picked: Picked,
    shelved: Shelved,
    rows: Int64[np.ndarray, " k"],
) -> None:
    """Take in those of some structures that were kept."""
    for row in rows.tolist():
        atoms = shelved.kept.get(row)
        if atoms is not None:
            packer.add(picked.names.of(shelved, row), atoms)


def _add_nearest(packer: StructurePacker, picked: Picked, nearest: Int64[np.ndarray, " k"]) -> None:
    """Take in the labelled structures nearest to the picks, whatever room there is."""
    rows = np.unique(nearest[nearest >= 0]).tolist()
    kept = picked.train.kept
    missing = [row for row in rows if row not in kept]
    again = read_sources([picked.train.source(row) for row in missing])
    known = dict(zip(missing, again, strict=True))
    for row in rows:
        atoms = kept[row] if row in kept else known[row]
        packer.add(picked.names.of(picked.train, row), atoms, must_fit=True)


def _iter_shortlisted(
    pool: Shelved, shown: Shown, measures: Measures
) -> Iterator[tuple[int, Atoms]]:
    """Go through the shortlisted structures on the map; some are read once more."""
    if measures.shortlist is None:
        return
    rows = np.intersect1d(measures.shortlist, shown.pool).tolist()
    yield from ((row, pool.kept[row]) for row in rows if row in pool.kept)
    missing = [row for row in rows if row not in pool.kept][:MOST_READ_AGAIN]
    if missing:
        yield from zip(missing, read_sources([pool.source(row) for row in missing]), strict=True)
