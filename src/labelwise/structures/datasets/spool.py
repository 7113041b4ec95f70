"""Structures read once, as text on disk, from which files are put together in any order."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from jaxtyping import Int64

from labelwise.errors import WriteError
from labelwise.runtime.files import whole_file
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.datasets.frame_text import format_frame
from labelwise.structures.electronic_state import encode_state
from labelwise.structures.identity import DuplicateIndex, fingerprint_arrays
from labelwise.structures.left_out import LeftOut


@dataclass(frozen=True)
class Spooled:
    """What is kept in memory of each structure of a spool, (n,) each.

    Attributes:
        families: Names; empty for none.
        splits: Names; empty for none.
        copy_of: First structure of the spool that each is an exact copy of, or its own number.
        n_atoms: Atoms.
    """

    families: list[str]
    splits: list[str]
    copy_of: Int64[np.ndarray, " n"]
    n_atoms: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        """Return n."""
        return len(self.families)


class Spool:
    """A temporary file of frames; a context manager that removes it.

    Args:
        folder: Where it lies, on the disk that the results go to.

    Raises:
        WriteError: It cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise WriteError(f"cannot write to {folder}: {error.strerror or error}") from error
        self._folder = folder
        self._ends = [0]

    def __enter__(self) -> Spool:
        """Return the spool itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the file."""
        self._file.close()

    def fill(self, structures: Iterable[LabelledStructure]) -> Spooled:
        """Take structures in; only numbers and names of them stay in memory.

        Raises:
            DataSetError: A structure that cannot be read.
            WriteError: The disk is full.

        Warns:
            LabelwiseWarning: Info that extended XYZ cannot hold was left out.
        """
        index = DuplicateIndex()
        families: list[str] = []
        splits: list[str] = []
        copies, sizes = [], []
        left_out = LeftOut("extended XYZ")
        for number, structure in enumerate(structures):
            arrays = structure.arrays
            known = fingerprint_arrays(
                arrays.numbers,
                arrays.positions,
                arrays.cell,
                arrays.pbc,
                encode_state(arrays.info, {}),
            )
            original = index.find(known)
            if original is None:
                index.add(known, number)
            copies.append(number if original is None else original)
            families.append(structure.entry.family or "")
            splits.append(structure.entry.split or "")
            sizes.append(len(arrays.numbers))
            self._append(format_frame(structure, left_out).encode())
        left_out.warn(self._folder)
        return Spooled(
            families, splits, np.array(copies, dtype=np.int64), np.array(sizes, dtype=np.int64)
        )

    def write(self, path: Path, numbers: Sequence[int]) -> None:
        """Write some structures to a file, in the order of their numbers given.

        Raises:
            WriteError: It cannot be written.
        """
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            stream.writelines(self._iter_frames(numbers))

    def _iter_frames(self, numbers: Sequence[int]) -> Iterator[bytes]:
        self._file.flush()
        for number in numbers:
            begin, end = self._ends[number], self._ends[number + 1]
            yield os.pread(self._file.fileno(), end - begin, begin)

    def _append(self, frame: bytes) -> None:
        try:
            self._file.write(frame)
        except OSError as error:
            raise WriteError(
                f"cannot write to {self._folder}: {error.strerror or error}"
            ) from error
        self._ends.append(self._ends[-1] + len(frame))
