"""Shards of OC20 as it is downloaded, written in one step."""

from __future__ import annotations

import lzma
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from labelwise.errors import LabelwiseError, WriteError
from labelwise.structures.datasets.base import DataSetError, LabelledStructure
from labelwise.structures.datasets.energies import REFERENCE_KEY
from labelwise.structures.fixed_atoms import free_atoms
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY

#: Structures of a shard, as the publishers have it.
N_PER_SHARD = 5000
#: The fastest: the publishers' 6 takes four times as long for a seventh less.
_PRESET = 1
_PROPERTIES = "species:S:1:pos:R:3:move_mask:L:1:tags:I:1:forces:R:3"


def write_shards(path: Path, structures: Iterable[LabelledStructure]) -> int:
    """Write structures as OC20 is downloaded: a folder ``s2ef_<split>`` for each split.

    Numbers are written as the shortest text that gives the same float64. The folder is there
    whole or not at all. At most one structure is in memory.

    Args:
        path: A new folder.
        structures: With a cell, info ``sid`` and ``fid`` and, where it is known,
            ``reference_energy`` (eV). An adsorption energy is written as the total energy that
            it was made of. Structures without a split go to the split ``all``.

    Returns:
        How many were written.

    Raises:
        DataSetError: A structure has no cell, no sid or no fid.
        WriteError: The path exists, there are no structures, or the disk is full.
    """
    if path.exists():
        raise WriteError(f"{path} exists; shards go into a new folder: choose another, or move it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
            whole = Path(temporary) / path.name
            whole.mkdir()
            n_written = _write_all(whole, structures)
            whole.rename(path)
    except OSError as error:
        if isinstance(error, LabelwiseError):
            raise
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    return n_written


def _write_all(folder: Path, structures: Iterable[LabelledStructure]) -> int:
    n_written = 0
    splits: dict[str, _SplitWriter] = {}
    with ExitStack() as stack:
        for structure in structures:
            split = "all" if structure.entry.split is None else structure.entry.split
            if split not in splits:
                splits[split] = stack.enter_context(_SplitWriter(folder, split))
            splits[split].write(structure)
            n_written += 1
    if n_written == 0:
        raise WriteError("there are no structures to write")
    return n_written


class _SplitWriter(ExitStack):
    """The shards of a split; the one being written is open."""

    def __init__(self, folder: Path, split: str) -> None:
        super().__init__()
        if not split or split.startswith(".") or "/" in split or "\0" in split:
            raise DataSetError(f"split {split!r:.60} cannot be the name of a folder")
        self._folder = folder / f"s2ef_{split}" / f"s2ef_{split}"
        self._folder.mkdir(parents=True)
        self._n_written = 0
        self._frames: lzma.LZMAFile
        self._records: lzma.LZMAFile

    def write(self, structure: LabelledStructure) -> None:
        """Append a structure, in a new shard where one is full."""
        frame, record = _format_frame(structure), _format_record(structure)
        shard, number = divmod(self._n_written, N_PER_SHARD)
        if number == 0:
            self.close()
            self._frames = self._open(f"{shard}.extxyz.xz")
            self._records = self._open(f"{shard}.txt.xz")
        self._frames.write(frame.encode())
        self._records.write(record.encode())
        self._n_written += 1

    def _open(self, name: str) -> lzma.LZMAFile:
        return self.enter_context(lzma.open(self._folder / name, "wb", preset=_PRESET))


def _format_record(structure: LabelledStructure) -> str:
    info = structure.atoms.info
    for key in ("sid", "fid"):
        if not isinstance(info.get(key), int | np.integer) or info[key] < 0:
            raise DataSetError(
                f"{structure.entry.name}: info {key!r} is {info.get(key)!r:.40}; OC20's shards "
                "name a structure by its relaxation (sid) and frame (fid), two integers"
            )
    reference = info.get(REFERENCE_KEY)
    ending = "" if reference is None else f",{float(reference)!r}"
    return f"random{info['sid']},frame{info['fid']}{ending}\n"


def _format_frame(structure: LabelledStructure) -> str:
    """Return a structure in the columns of OC20; the energy is the total energy."""
    atoms = structure.atoms
    if not atoms.cell.array.any():
        raise DataSetError(
            f"{structure.entry.name}: no cell; OC20's structures are periodic. Write molecules in "
            "another format"
        )
    is_corrected = "total_energy" in atoms.info
    energy = float(atoms.info["total_energy" if is_corrected else DEFAULT_ENERGY_KEY])
    columns = (
        [chemical_symbols[number] for number in atoms.numbers.tolist()],
        _format_vectors(atoms.positions),
        ["T" if is_free else "F" for is_free in free_atoms(atoms).tolist()],
        map(str, atoms.get_tags().tolist()),
        _format_vectors(atoms.arrays[DEFAULT_FORCES_KEY]),
    )
    rows = "\n".join(map(" ".join, zip(*columns, strict=True)))
    lattice = " ".join(map(repr, atoms.cell.array.ravel().tolist()))
    periodic = " ".join("T" if flag else "F" for flag in atoms.pbc)
    return (
        f'{len(atoms)}\nLattice="{lattice}" Properties={_PROPERTIES} energy={energy!r} '
        f'pbc="{periodic}"\n{rows}\n'
    )


def _format_vectors(values: np.ndarray) -> list[str]:
    return [f"{x!r} {y!r} {z!r}" for x, y, z in values.tolist()]
