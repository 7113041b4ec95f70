"""Structures read once more: what is noted of them, and which are kept to be looked at."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from jaxtyping import Int32, Int64

from labelwise.selection.page.pool_columns import ColumnCollector, clean_text
from labelwise.selection.page.structure_packing import BYTES_AN_ATOM
from labelwise.structures import Frame, Source

_LONGEST_NAME = 120


@dataclass(frozen=True, eq=False)
class Shelved:
    """What was noted of the n structures of a role that were not set aside.

    Attributes:
        n_read: Structures that were read, those set aside included.
        indices: Place among all that were read, (n,), ascending.
        files: Names of files, as they were read.
        file: Place in ``files``, (n,).
        frame: Number of the frame in its file, (n,).
        kept: Structures to be looked at, by row 0 to n - 1.
    """

    n_read: int
    indices: Int64[np.ndarray, " n"]
    files: tuple[str, ...]
    file: Int32[np.ndarray, " n"]
    frame: Int32[np.ndarray, " n"]
    kept: dict[int, Atoms]

    def __len__(self) -> int:
        """Count the structures."""
        return len(self.indices)

    def source(self, row: int) -> Source:
        """Return file and frame of a structure."""
        return Source(self.files[int(self.file[row])], int(self.frame[row]))


def shelve(
    frames: Iterable[Frame],
    aside: Collection[int],
    collector: ColumnCollector,
    *,
    always: Collection[int],
    max_bytes: int,
    seed: int,
    tell: Callable[[int], object],
) -> Shelved:
    """Note the structures of a role.

    Args:
        frames: Read once.
        aside: Places, among all that are read, of those that were set aside.
        collector: Told of every structure that was not.
        always: Places of structures that are kept, whatever room there is.
        max_bytes: Room for others, as ``StructurePacker`` counts; they are drawn at random.
        seed: Of the draw.
        tell: Called with the number of structures noted so far.
    """
    indices: list[int] = []
    files: dict[str, int] = {}
    file: list[int] = []
    number: list[int] = []
    kept: dict[int, Atoms] = {}
    drawn: list[tuple[float, int, Atoms]] = []
    random, n_read = np.random.default_rng(seed), 0
    for frame in frames:
        n_read += 1
        if frame.index in aside:
            continue
        row, atoms = len(indices), frame.atoms
        collector.add(atoms)
        indices.append(frame.index)
        file.append(files.setdefault(frame.source.file, len(files)))
        number.append(frame.source.frame)
        tell(len(indices))
        if frame.index in always:
            kept[row] = atoms
            continue
        max_bytes -= BYTES_AN_ATOM * len(atoms)
        heapq.heappush(drawn, (-float(random.random()), row, _bare(atoms)))
        while max_bytes < 0 and drawn:
            max_bytes += BYTES_AN_ATOM * len(heapq.heappop(drawn)[2])
    kept |= {row: atoms for _, row, atoms in drawn}
    return Shelved(
        n_read,
        np.array(indices, dtype=np.int64),
        tuple(files),
        np.array(file, dtype=np.int32),
        np.array(number, dtype=np.int32),
        kept,
    )


def short_names(files: Iterable[str]) -> dict[str, str]:
    """Return the name by which each file is shown: its last part, if that tells it apart."""
    unique = list(dict.fromkeys(files))
    last = [Path(file).name for file in unique]
    return {
        file: name if last.count(name) == 1 else file
        for file, name in zip(unique, last, strict=True)
    }


def _bare(atoms: Atoms) -> Atoms:
    """Return what is needed to look at a structure, without labels and info."""
    return Atoms(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell,
        pbc=atoms.pbc,
        constraint=atoms.constraints,
    )


class Names:
    """How structures are called on a page: file and frame, without folders where that is clear."""

    def __init__(self, *roles: Shelved) -> None:
        self._short = short_names(file for role in roles for file in role.files)

    def of(self, shelved: Shelved, row: int) -> str:
        """Return the name of a structure."""
        source = shelved.source(row)
        return clean_text(f"{self._short[source.file]}@{source.frame}", _LONGEST_NAME)

    def of_file(self, file: str) -> str:
        """Return the name of a file."""
        return clean_text(self._short.get(file, Path(file).name), _LONGEST_NAME)

    def of_source(self, source: Source) -> str:
        """Return the name of a structure of which only the source is known."""
        name = self._short.get(source.file, Path(source.file).name)
        return clean_text(f"{name}@{source.frame}", _LONGEST_NAME)
