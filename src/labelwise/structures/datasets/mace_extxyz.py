"""Extended XYZ with labels, as MACE is trained on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixCartesian, FixConstraint

from labelwise.errors import DataSetError, LabelError
from labelwise.runtime.files import whole_file
from labelwise.structures.compression import strip_compression
from labelwise.structures.datasets.base import (
    DataFile,
    Entry,
    LabelledStructure,
    make_format,
    make_structure,
)
from labelwise.structures.datasets.frame_text import format_frame
from labelwise.structures.datasets.units import check_units
from labelwise.structures.extxyz import iter_frame_texts, parse_frame
from labelwise.structures.fixed_atoms import free_atoms
from labelwise.structures.isolated_atoms import is_called_isolated
from labelwise.structures.labels import (
    ASE_KEYS,
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
    get_labels,
)
from labelwise.structures.left_out import LeftOut

_SUFFIXES = (".xyz", ".extxyz")
#: MACE's own keys, and those that ASE moves into a calculator.
_KEYS = ((DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY), ASE_KEYS)
_FAMILY = ("reaction", "family")


class MaceExtxyz(DataFile):
    """One file. Isolated atoms, which carry reference energies, are not structures of it.

    Args:
        path: The file, plain or compressed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def iter_entries(self) -> Iterator[Entry]:
        """Parse every frame, which is what it takes."""
        for structure in self.iter_structures():
            yield structure.entry

    def iter_structures(self, wanted: Iterable[int] | None = None) -> Iterator[LabelledStructure]:
        """Yield the wanted structures; see ``check_units`` for their energies."""
        return check_units(self._iter_unjudged(wanted), self._path)

    def _iter_unjudged(self, wanted: Iterable[int] | None) -> Iterator[LabelledStructure]:
        places = None if wanted is None else set(wanted)
        position = 0
        for frame, text in enumerate(iter_frame_texts(self._path)):
            where = f"{self._path}@{frame}"
            is_wanted = places is None or position in places
            if is_wanted or int(text.split("\n", 1)[0]) == 1:
                atoms = parse_frame(text, where)
                if is_called_isolated(atoms):
                    continue
                if is_wanted:
                    yield _as_structure(atoms, position, frame, where, self._path)
            position += 1


def _as_structure(
    atoms: Atoms, position: int, frame: int, where: str, path: Path
) -> LabelledStructure:
    info = {key: value for key, value in atoms.info.items() if key not in dict(_KEYS)}
    order = _integer(info.get("frame"))
    entry = Entry(
        position,
        str(info.pop("name", f"{strip_compression(path).stem}/{frame}")),
        family=next((str(info[key]) for key in _FAMILY if key in info), None),
        order=order,
        subset=_text(info.get("subset")),
        split=_text(info.get("split")),
        charge=_integer(info.get("charge", info.get("total_charge"))),
        spin=_integer(info.get("spin", info.get("total_spin"))),
    )
    energy, forces = _find_labels(atoms, where)
    structure = make_structure(
        entry,
        where,
        numbers=atoms.numbers,
        positions=atoms.positions,
        energy=energy,
        forces=forces,
        cell=atoms.cell.array if atoms.cell.rank or atoms.pbc.any() else None,
        pbc=tuple(atoms.pbc.tolist()),
        tags=atoms.arrays.get("tags"),
        fixed=~free_atoms(atoms),
        info={key: value for key, value in info.items() if key not in ("family", "frame")},
    )
    structure.keep_constraints(each for each in atoms.constraints if _is_partial(each))
    return structure


def _is_partial(constraint: FixConstraint) -> bool:
    """Return whether a constraint holds an atom in some directions; ASE has one for each atom."""
    return isinstance(constraint, FixCartesian) and 0 < sum(constraint.mask.tolist()) < 3


def _find_labels(atoms: Atoms, where: str) -> tuple[float, np.ndarray]:
    problems = []
    for energy_key, forces_key in _KEYS:
        try:
            labels = get_labels(atoms, where, energy_key=energy_key, forces_key=forces_key)
        except LabelError as error:
            problems.append(error)
        else:
            return labels.energy, labels.forces
    raise DataSetError(
        f"{problems[0]}; allowed are REF_energy and REF_forces, or energy and forces"
    )


def _integer(value: Any) -> int | None:
    if isinstance(value, int | float | np.number) and float(value).is_integer():
        return int(value)
    return None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def write_labelled(path: Path, structures: Iterable[LabelledStructure]) -> int:
    """Write structures to a file in one step; return how many.

    Raises:
        WriteError: It cannot be written.

    Warns:
        LabelwiseWarning: Info that extended XYZ cannot hold was left out.
    """
    n_written = 0
    left_out = LeftOut("extended XYZ")
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for structure in structures:
            stream.write(format_frame(structure, left_out))
            n_written += 1
    left_out.warn(path)
    return n_written


FORMAT = make_format(
    "mace-extxyz",
    recognise=lambda path: path.is_file() and strip_compression(path).suffix.lower() in _SUFFIXES,
    opener=MaceExtxyz,
    write=write_labelled,
)
