"""SPICE: conformations of small molecules, dimers and peptides, in one HDF5 file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.units import Bohr, Hartree

from labelwise.errors import DataSetError
from labelwise.structures.datasets.base import Entry, make_format
from labelwise.structures.datasets.hdf5 import (
    Column,
    GroupedFile,
    find_dataset,
    reading_errors,
    recognise_hdf5,
)

_NAMES = {
    "conformations", "formation_energy", "dft_total_energy", "dft_total_gradient", "subset",
    "smiles", "atomic_numbers",
}  # fmt: skip
#: An atom in brackets: isotope, symbol, chirality, hydrogens, charge, number in the map.
_BRACKET_ATOM = re.compile(
    r"(?:\d+)?(?:[A-Z][a-z]?|[a-z][a-z]?|\*)(?:@{1,2}(?:[A-Z]{2}\d+)?)?(?:H\d*)?"
    r"(\++|-+|\+\d+|-\d+)?(?::\d+)?"
)


class SpiceFile(GroupedFile):
    """An open SPICE file: groups in the order in which HDF5 lists them, conformations as stored.

    Energies, positions and forces are converted with the constants of ``ase.units``; a force is
    the negative gradient. ``formation_energy`` (eV), ``smiles`` and ``subset`` are taken where a
    group has them, and the charge is that of the SMILES, as the publishers take it.

    Args:
        path: The file.

    Raises:
        DataSetError: It is not HDF5, or cut short.
        MissingDependencyError: h5py is not installed.
    """

    positions = Column("conformations", Bohr, "bohr")
    energies = Column("dft_total_energy", Hartree, "hartree")
    forces = Column("dft_total_gradient", -(Hartree / Bohr), "hartree/bohr")
    extras = (Column("formation_energy", Hartree, "hartree"),)
    is_path = False

    def _iter_groups(self) -> Iterator[str]:
        with reading_errors(str(self._path)):
            yield from self._file

    def _describe(
        self,
        group: str,
        found: Any,
        numbers: np.ndarray,  # noqa: ARG002
        where: str,
    ) -> tuple[Entry, Mapping[str, Any]]:
        smiles, subset = (_read_text(found, key, where) for key in ("smiles", "subset"))
        charge = None if smiles is None else sum_charges(smiles)
        entry = Entry(0, group, group, subset=subset, charge=charge)
        return entry, {} if smiles is None else {"smiles": smiles}


def recognise(path: Path) -> bool:
    """Return whether a path is an HDF5 file whose first group is one of SPICE.

    A file with the suffix ``.hdf5`` that cannot be opened is taken, so that opening it says what
    is wrong.

    Raises:
        MissingDependencyError: It is HDF5, and h5py is not installed.
    """
    return recognise_hdf5(path, ".hdf5", _is_laid_out)


@lru_cache(maxsize=1024)
def sum_charges(smiles: str) -> int | None:
    """Return the charge of a molecule from its SMILES; None where a bracket is not understood.

    Atoms without brackets are neutral by definition.
    """
    total = 0
    opened, closed = smiles.count("["), smiles.count("]")
    brackets = re.findall(r"\[([^\[\]]*)\]", smiles)
    if opened != len(brackets) or closed != len(brackets):
        return None
    for bracket in brackets:
        atom = _BRACKET_ATOM.fullmatch(bracket)
        if atom is None:
            return None
        total += _parse_charge(atom[1] or "")
    return total


def _parse_charge(sign: str) -> int:
    """Return the number that ``+``, ``--`` or ``+2`` stand for."""
    if not sign:
        return 0
    size = int(sign[1:]) if sign[1:].isdigit() else len(sign)
    return size if sign[0] == "+" else -size


def _is_laid_out(file: Any) -> bool:
    first = next(iter(file), None)
    group: Any = {} if first is None else file.get(first)
    return hasattr(group, "keys") and len(_NAMES.intersection(group)) > 1


def _read_text(group: Any, name: str, where: str) -> str | None:
    """Return a dataset of one text; None where there is none."""
    with reading_errors(where):
        dataset = find_dataset(group, name)
        values = [] if dataset is None else np.ravel(dataset[()]).tolist()
    if dataset is None:
        return None
    if len(values) != 1 or not isinstance(values[0], bytes | str):
        raise DataSetError(f"{where}: {name!r} is {values!s:.60}; expected one text")
    with reading_errors(where):
        return values[0].decode() if isinstance(values[0], bytes) else values[0]


FORMAT = make_format(
    "spice",
    recognise=recognise,
    opener=SpiceFile,
)
