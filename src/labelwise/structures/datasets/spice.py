"""SPICE: conformations of small molecules, dimers and peptides, in one HDF5 file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.units import Bohr, Hartree

from labelwise.errors import WriteError
from labelwise.structures.datasets.base import DataSetError, Entry, Format, LabelledStructure
from labelwise.structures.datasets.hdf5 import (
    Block,
    Frames,
    GroupedFile,
    find_dataset,
    get_dataset,
    read_numbers,
    reading_errors,
    recognise_hdf5,
)
from labelwise.structures.datasets.hdf5_writing import (
    Column,
    FrameWriter,
    check_group_name,
    create_file,
    iter_families,
    writing_errors,
)
from labelwise.structures.labels import get_labels

_POSITIONS = "conformations"
_FORMATION = "formation_energy"
_ENERGY = "dft_total_energy"
_GRADIENT = "dft_total_gradient"
_COLUMNS = {
    _POSITIONS: Column("f4", "bohr"),
    _FORMATION: Column("f8", "hartree"),
    _ENERGY: Column("f8", "hartree"),
    _GRADIENT: Column("f4", "hartree/bohr"),
}
_NAMES = {*_COLUMNS, "subset", "smiles", "atomic_numbers"}
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

    positions_key = _POSITIONS
    is_path = False

    def _iter_groups(self) -> Iterator[str]:
        with reading_errors(str(self._path)):
            yield from self._file

    def _describe(self, group: str, n_frames: int) -> Block:
        where = self._where(group)
        with reading_errors(where):
            found = self._file[group]
            has_formation = _FORMATION in found
        numbers = read_numbers(found, where)
        datasets = {
            _POSITIONS: _get(found, _POSITIONS, where, n_frames, numbers.size, 3),
            _ENERGY: _get(found, _ENERGY, where, n_frames),
            _GRADIENT: _get(found, _GRADIENT, where, n_frames, numbers.size, 3),
        }
        if has_formation:
            datasets[_FORMATION] = _get(found, _FORMATION, where, n_frames)
        smiles = _read_text(found, "smiles", where)
        entry = Entry(
            0,
            group,
            group,
            subset=_read_text(found, "subset", where),
            n_atoms=numbers.size,
            elements=tuple(np.unique(numbers).tolist()),
            charge=None if smiles is None else sum_charges(smiles),
        )
        info = {} if smiles is None else {"smiles": smiles}
        return Block(entry, numbers, datasets, info)

    def _read(self, block: Block, frames: slice) -> Frames:
        read = {
            key: np.asarray(dataset[frames], dtype=np.float64)
            for key, dataset in block.datasets.items()
        }
        return Frames(
            read[_ENERGY] * Hartree,
            read[_POSITIONS] * Bohr,
            -read[_GRADIENT] * (Hartree / Bohr),
            {key: read[key] * Hartree for key in read.keys() & {_FORMATION}},
        )


def recognise(path: Path) -> bool:
    """Return whether a path is an HDF5 file whose first group is one of SPICE.

    A file with the suffix ``.hdf5`` that cannot be opened is taken, so that opening it says what
    is wrong.

    Raises:
        MissingDependencyError: It is HDF5, and h5py is not installed.
    """
    return recognise_hdf5(path, ".hdf5", _is_laid_out)


def write(path: Path, structures: Iterable[LabelledStructure]) -> int:
    """Write structures in the layout of SPICE.

    Positions and gradients are float32 there, so that they are rounded to 24 bits; what was read
    from such a file is written back as it was. Energies are float64 and right to the last bit or
    the one before it. A group is read back in the order of names. ``smiles`` and
    ``formation_energy`` (eV) come from info; tags, fixed atoms, splits and further info keys are
    left out.

    Args:
        path: Where to write; there whole or not at all.
        structures: Singlet molecules; a family together, which names the group. Only one family
            is in memory, and of that 2 MB.

    Returns:
        Structures written.

    Raises:
        WriteError: What the layout has no place for: no family, a family that comes again, has
            differing atoms, SMILES or subsets, or a slash in its name, a formation energy for
            only some of a family, a cell, another charge than the SMILES has, or a spin; or the
            file cannot be written.
        LabelError: A structure has no energy or forces, or they are not finite.
        MissingDependencyError: h5py is not installed.
    """
    n_written = 0
    with create_file(path) as file:
        for family, first, members in iter_families(path, structures):
            n_written += _write_group(path, file, family, first, members)
    return n_written


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


def _get(group: Any, name: str, where: str, *shape: int) -> Any:
    """Return a dataset after a check of its shape and unit."""
    dataset = get_dataset(group, name, where, *shape)
    with reading_errors(where):
        units = dataset.attrs.get("units")
    units = units.decode() if isinstance(units, bytes) else units
    expected = _COLUMNS[name].units
    if units != expected:
        raise DataSetError(
            f"{where}: {name!r} has units {units!r}; SPICE has {expected!r}, and says so in the "
            "dataset's attribute 'units'"
        )
    return dataset


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


def _write_group(
    path: Path,
    file: Any,
    family: str,
    first: LabelledStructure,
    members: Iterator[LabelledStructure],
) -> int:
    where = f"{path}: family {family!r}"
    check_group_name(family, where)
    shared = _shared_facts(first)
    with writing_errors(where):
        group = file.create_group(family)
        _write_shared(group, first)
    columns = {key: each for key, each in _COLUMNS.items() if key != _FORMATION or shared[2]}
    writer = FrameWriter(group, columns, where)
    n_written = 0
    for member in members:
        _check_member(path, member, shared)
        labels = get_labels(member.atoms, member.entry.name)
        values = {
            _POSITIONS: member.atoms.positions / Bohr,
            _FORMATION: member.atoms.info.get(_FORMATION, 0.0) / Hartree,
            _ENERGY: labels.energy / Hartree,
            _GRADIENT: -labels.forces / (Hartree / Bohr),
        }
        writer.append(*(values[key] for key in columns))
        n_written += 1
    writer.finish()
    return n_written


def _shared_facts(member: LabelledStructure) -> tuple[str | None, str | None, bool]:
    """Return what all structures of a group have in common: SMILES, subset, formation energy."""
    info = member.atoms.info
    return info.get("smiles"), member.entry.subset, _FORMATION in info


def _write_shared(group: Any, first: LabelledStructure) -> None:
    import h5py

    for name, text in (("subset", first.entry.subset), ("smiles", first.atoms.info.get("smiles"))):
        if text is not None:
            group.create_dataset(name, data=[text], dtype=h5py.string_dtype())
    group.create_dataset("atomic_numbers", data=first.atoms.numbers, dtype=np.int16)


def _check_member(
    path: Path, member: LabelledStructure, shared: tuple[str | None, str | None, bool]
) -> None:
    entry = member.entry
    name = f"cannot write {path}: structure {entry.name!r}"
    if _shared_facts(member) != shared:
        raise WriteError(
            f"{name} differs from the first of its family in its SMILES, its subset, or in "
            "whether it has a formation energy; SPICE keeps one of each for a family"
        )
    held = 0 if shared[0] is None else sum_charges(shared[0])
    if entry.charge not in (None, held) or entry.spin not in (None, 1):
        raise WriteError(
            f"{name} has charge {entry.charge} and multiplicity {entry.spin}; SPICE holds "
            f"singlets, whose charge is that of the SMILES (here {held})"
        )


FORMAT = Format(
    name="spice",
    title="SPICE",
    level_of_theory="ωB97M-D3(BJ)/def2-TZVPPD",
    citation=(
        "P. Eastman et al., SPICE, A Dataset of Drug-like Molecules and Peptides for Training "
        "Machine Learning Potentials, Sci. Data 10, 11 (2023), doi:10.1038/s41597-022-01882-6; "
        "P. Eastman et al., J. Chem. Theory Comput. 20, 8583 (2024), doi:10.1021/acs.jctc.4c00794"
    ),
    licence="CC0 1.0",
    url="https://doi.org/10.5281/zenodo.10975225",
    units="hartree, bohr, hartree/bohr; gradients in place of forces",
    layout=(
        "HDF5: /<molecule>/{subset, smiles, atomic_numbers, conformations, formation_energy, "
        "dft_total_energy, dft_total_gradient}, each with an attribute units"
    ),
    recognise=recognise,
    open=SpiceFile,
    write=write,
    suffixes=(".hdf5",),
    groups_families=True,
)
