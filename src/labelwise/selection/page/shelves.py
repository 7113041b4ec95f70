"""Structures read once more: what is noted of them, and which are kept to be looked at."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from jaxtyping import Int32, Int64

from labelwise.errors import ReadError
from labelwise.selection.page.pool_columns import ColumnCollector, clean_text
from labelwise.selection.page.structure_packing import BYTES_AN_ATOM
from labelwise.structures import Frame, Source

_LONGEST_NAME = 120


class Shelf:
    """The structures of one role that were not set aside, in the order in which they were read.

    Args:
        role: ``train`` or ``pool``.
        aside: Places, among all that are read, of those that were set aside.
        collector: Told of every structure that was not.
        always: Places of structures that are kept, whatever room there is.
        max_bytes: Room for others, as ``StructurePacker`` counts; they are drawn at random.
        seed: Of the draw.
    """

    def __init__(
        self,
        role: str,
        aside: set[int],
        collector: ColumnCollector,
        *,
        always: set[int],
        max_bytes: int,
        seed: int,
    ) -> None:
        self.role = role
        self.n_read = 0
        self._aside, self._collector, self._always = aside, collector, always
        self._indices: list[int] = []
        self._files: dict[str, int] = {}
        self._file: list[int] = []
        self._frame: list[int] = []
        self._kept: dict[int, Atoms] = {}
        self._drawn: list[tuple[float, int, Atoms]] = []
        self._room = max_bytes
        self._random = np.random.default_rng(seed)

    def __len__(self) -> int:
        """Count the structures that were not set aside."""
        return len(self._indices)

    def passing(self, frames: Iterable[Frame]) -> Iterator[Atoms]:
        """Note structures as they pass, and pass on those that were not set aside."""
        for frame in frames:
            self.n_read += 1
            if frame.index in self._aside:
                continue
            self._note(frame)
            yield frame.atoms

    def close(self, n_expected: int, where: str) -> Shelved:
        """Return what was noted.

        Args:
            n_expected: Structures that must have been read.
            where: What says so.

        Raises:
            ReadError: There were more or fewer.
        """
        if self.n_read != n_expected:
            raise ReadError(
                f"the {self.role} holds {self.n_read} structures and held {n_expected} when "
                f"{where} was written; put the files back, or run the selection again"
            )
        kept = {**self._kept, **{row: atoms for _, row, atoms in self._drawn}}
        return Shelved(
            np.array(self._indices, dtype=np.int64),
            tuple(self._files),
            np.array(self._file, dtype=np.int32),
            np.array(self._frame, dtype=np.int32),
            kept,
        )

    def _note(self, frame: Frame) -> None:
        row = len(self._indices)
        self._collector.add(frame.atoms)
        self._indices.append(frame.index)
        self._file.append(self._files.setdefault(frame.source.file, len(self._files)))
        self._frame.append(frame.source.frame)
        if frame.index in self._always:
            self._kept[row] = frame.atoms
            return
        self._room -= BYTES_AN_ATOM * len(frame.atoms)
        lot = (-float(self._random.random()), row, _bare(frame.atoms))
        heapq.heappush(self._drawn, lot)
        while self._room < 0 and self._drawn:
            _, _, dropped = heapq.heappop(self._drawn)
            self._room += BYTES_AN_ATOM * len(dropped)


@dataclass(frozen=True, eq=False)
class Shelved:
    """What was noted of n structures.

    Attributes:
        indices: Place among all that were read, (n,), ascending.
        files: Names of files, as they were read.
        file: Place in ``files``, (n,).
        frame: Number of the frame in its file, (n,).
        kept: Structures to be looked at, by row 0 to n - 1.
    """

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

    def rows_of(self, indices: Iterable[int]) -> Int64[np.ndarray, " k"]:
        """Return the rows of structures given by their place among all that were read."""
        wanted = np.fromiter(indices, dtype=np.int64)
        rows: Int64[np.ndarray, " k"] = np.searchsorted(self.indices, wanted).astype(np.int64)
        return rows


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
