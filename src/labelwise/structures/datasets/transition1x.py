"""Transition1x: images of reaction paths, in one HDF5 file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from labelwise.errors import WriteError
from labelwise.structures.datasets.base import DataSetError, Entry, Format, LabelledStructure
from labelwise.structures.datasets.hdf5 import (
    Block,
    Frames,
    GroupedFile,
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

_ENERGY = "wB97x_6-31G(d).energy"
_FORCES = "wB97x_6-31G(d).forces"
_POSITIONS = "positions"
_COLUMNS = {_ENERGY: Column("f8"), _FORCES: Column("f8"), _POSITIONS: Column("f8")}
_SPLITS = ("train", "val", "test")
#: A first path of ten images, and of each later one those between its ends.
_FIRST_PATH, _LATER_PATH = 10, 8


@dataclass(frozen=True, slots=True)
class _Reaction:
    formula: str
    name: str
    family: str
    split: str | None


class Transition1xFile(GroupedFile):
    """An open Transition1x file: reactions sorted by formula and name, images ascending.

    The groups ``reactant``, ``transition_state`` and ``product`` repeat images of the path and
    are not read. A family is a reaction, named ``<formula>/<reaction>`` if two formulas of the
    file have a reaction of the same name.

    Args:
        path: The file.

    Raises:
        DataSetError: It is not HDF5, cut short, has no group ``data``, or its splits do not
            agree with that group.
        MissingDependencyError: h5py is not installed.
    """

    positions_key = _POSITIONS
    is_path = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with reading_errors(str(path)):
                listed = _list_reactions(self._file, str(path))
                splits = _list_splits(self._file, listed, str(path))
        except DataSetError:
            self.close()
            raise
        are_unique = len({name for _, name in listed}) == len(listed)
        self._reactions = {
            f"/data/{formula}/{name}": _Reaction(
                formula,
                name,
                name if are_unique else f"{formula}/{name}",
                splits.get((formula, name)),
            )
            for formula, name in listed
        }

    def _iter_groups(self) -> Iterator[str]:
        return iter(self._reactions)

    def _describe(self, group: str, n_frames: int) -> Block:
        reaction, where = self._reactions[group], self._where(group)
        with reading_errors(where):
            found = self._file[group]
        numbers = read_numbers(found, where)
        _check_formula(reaction.formula, numbers, where)
        datasets = {
            _ENERGY: get_dataset(found, _ENERGY, where, n_frames),
            _FORCES: get_dataset(found, _FORCES, where, n_frames, numbers.size, 3),
            _POSITIONS: get_dataset(found, _POSITIONS, where, n_frames, numbers.size, 3),
        }
        entry = Entry(
            0,
            f"{reaction.formula}/{reaction.name}",
            reaction.family,
            split=reaction.split,
            n_atoms=numbers.size,
            elements=tuple(np.unique(numbers).tolist()),
        )
        info = {"reaction": reaction.family, "formula": reaction.formula}
        return Block(entry, numbers, datasets, info)

    def _read(self, block: Block, frames: slice) -> Frames:
        energies, forces, positions = (
            np.asarray(block.datasets[key][frames], dtype=np.float64) for key in _COLUMNS
        )
        return Frames(energies, positions, forces, {})


def recognise(path: Path) -> bool:
    """Return whether a path is an HDF5 file with a group ``data``.

    A file with the suffix ``.h5`` that cannot be opened is taken, so that opening it says what
    is wrong.

    Raises:
        MissingDependencyError: It is HDF5, and h5py is not installed.
    """
    return recognise_hdf5(path, ".h5", lambda file: "data" in file)


def write(path: Path, structures: Iterable[LabelledStructure]) -> int:
    """Write structures in the layout of Transition1x, in float64 and without loss.

    Images are numbered from 0 in the order in which they come. The groups ``reactant``,
    ``transition_state`` and ``product`` are made for reactions that come whole: images 0 to
    n - 1, a path of ten and then eight of each later path. Tags, fixed atoms and further info
    keys are left out.

    Args:
        path: Where to write; there whole or not at all.
        structures: Neutral singlet molecules; a family together, named ``<reaction>`` or
            ``<formula>/<reaction>``. Only one family is in memory, and of that 2 MB.

    Returns:
        Structures written.

    Raises:
        WriteError: What the layout has no place for: no family, a family that comes again or
            has differing atoms, images that do not ascend, a cell, a charge or spin, a split
            other than train, val and test or that differs within a formula; or the file cannot
            be written.
        LabelError: A structure has no energy or forces, or they are not finite.
        MissingDependencyError: h5py is not installed.
    """
    n_written = 0
    splits: dict[str, str | None] = {}
    with create_file(path) as file:
        with writing_errors(str(path)):
            data = file.create_group("data")
        for _, first, images in iter_families(path, structures):
            n_written += _write_reaction(path, data, first, images, splits)
        _link_splits(path, file, splits)
    return n_written


def _list_reactions(file: Any, where: str) -> list[tuple[str, str]]:
    """Return formula and name of each reaction, from the names of groups alone."""
    listed: list[tuple[str, str]] = []
    for formula, reactions in _subgroups(file, "data", where):
        listed.extend((formula, name) for name in reactions)
    return listed


def _list_splits(
    file: Any, listed: list[tuple[str, str]], where: str
) -> dict[tuple[str, str], str]:
    """Return the split of each reaction that is in one."""
    known = set(listed)
    splits: dict[tuple[str, str], str] = {}
    for split in _SPLITS:
        for formula, reactions in _subgroups(file, split, where) if split in file else ():
            for key in ((formula, name) for name in reactions):
                if key not in known:
                    raise DataSetError(f"{where}: /{split} has {'/'.join(key)}, /data has not")
                if key in splits:
                    raise DataSetError(
                        f"{where}: {'/'.join(key)} is in both /{splits[key]} and /{split}"
                    )
                splits[key] = split
    return splits


def _subgroups(file: Any, name: str, where: str) -> Iterator[tuple[str, Any]]:
    group = file.get(name)
    if not hasattr(group, "keys"):
        raise DataSetError(f"{where}: there is no group /{name}; at the top are {sorted(file)}")
    for formula in group:
        member = group.get(formula)
        if member is None:
            raise DataSetError(f"{where}: the link /{name}/{formula} leads nowhere")
        if not hasattr(member, "keys"):
            raise DataSetError(f"{where}: /{name}/{formula} is not a group of reactions")
        yield formula, member


@lru_cache(maxsize=1024)
def _count_atoms(formula: str) -> dict[str, int] | None:
    try:
        return dict(Formula(formula).count())
    except ValueError:
        return None


def _check_formula(formula: str, numbers: np.ndarray, where: str) -> None:
    if _count_atoms(formula) != Counter(chemical_symbols[number] for number in numbers.tolist()):
        raise DataSetError(
            f"{where}: the group is named {formula}, and its atomic numbers are "
            f"{numbers.tolist()!s:.100}"
        )


def _write_reaction(
    path: Path,
    data: Any,
    first: LabelledStructure,
    images: Iterator[LabelledStructure],
    splits: dict[str, str | None],
) -> int:
    where = f"{path}: reaction {first.entry.family!r}"
    formula = first.atoms.get_chemical_formula()
    group = _create_reaction(data, formula, first, where)
    writer = FrameWriter(group, _COLUMNS, where)
    orders: list[int | None] = []
    for image in images:
        _check_image(path, image, orders)
        _note_split(path, formula, image.entry, splits)
        labels = get_labels(image.atoms, image.entry.name)
        writer.append(labels.energy, labels.forces, image.atoms.positions)
        orders.append(image.entry.order)
    writer.finish()
    n_later = len(orders) - _FIRST_PATH
    if n_later >= 0 and n_later % _LATER_PATH == 0 and orders == list(range(len(orders))):
        with writing_errors(where):
            _write_ends(group, formula)
    return len(orders)


def _create_reaction(data: Any, formula: str, first: LabelledStructure, where: str) -> Any:
    name = str(first.entry.family).removeprefix(f"{formula}/")
    check_group_name(name, where)
    with writing_errors(where):
        of_formula = data.require_group(formula)
        if name in of_formula:
            raise WriteError(f"cannot write {where}: {formula}/{name} comes a second time")
        group = of_formula.create_group(name)
        group["atomic_numbers"] = first.atoms.numbers.astype(np.int64)
    return group


def _check_image(path: Path, image: LabelledStructure, orders: list[int | None]) -> None:
    entry = image.entry
    name = f"cannot write {path}: structure {entry.name!r}"
    if entry.charge not in (None, 0) or entry.spin not in (None, 1):
        raise WriteError(
            f"{name} has charge {entry.charge} and multiplicity {entry.spin}; Transition1x has "
            "no place for either and holds neutral singlets"
        )
    former = orders[-1] if orders else None
    if former is not None and entry.order is not None and entry.order <= former:
        raise WriteError(f"{name} is image {entry.order} and comes after image {former}")


def _note_split(path: Path, formula: str, entry: Entry, splits: dict[str, str | None]) -> None:
    if entry.split not in (None, *_SPLITS):
        raise WriteError(
            f"cannot write {path}: structure {entry.name!r} is in split {entry.split!r}; "
            f"Transition1x knows {', '.join(_SPLITS)}"
        )
    if splits.setdefault(formula, entry.split) != entry.split:
        raise WriteError(
            f"cannot write {path}: structure {entry.name!r} is in split {entry.split}, others of "
            f"{formula} in {splits[formula]}; Transition1x splits whole formulas"
        )


def _link_splits(path: Path, file: Any, splits: dict[str, str | None]) -> None:
    import h5py

    with writing_errors(str(path)):
        for split in _SPLITS:
            group = file.create_group(split)
            for formula in (each for each, its_split in splits.items() if its_split == split):
                group[formula] = h5py.SoftLink(f"/data/{formula}")


def _write_ends(group: Any, formula: str) -> None:
    """Repeat the ends of the first path and the highest image of the last."""
    energies = group[_ENERGY][()]
    n_last = _FIRST_PATH if len(energies) == _FIRST_PATH else _LATER_PATH
    highest = len(energies) - n_last + int(np.argmax(energies[-n_last:]))
    ends = {"reactant": 0, "transition_state": highest, "product": _FIRST_PATH - 1}
    for name, image in ends.items():
        end = group.create_group(name)
        end["atomic_numbers"] = group["atomic_numbers"][()]
        for key in _COLUMNS:
            end[key] = group[key][image : image + 1]
        end["hash"] = _hash_positions(end[_POSITIONS][0], formula)


def _hash_positions(positions: np.ndarray, formula: str) -> int:
    """Return the number that equal ends of different reactions share."""
    text = f"{positions}{formula}".encode()
    return int(hashlib.sha1(text, usedforsecurity=False).hexdigest(), 16) % 10**8


FORMAT = Format(
    name="transition1x",
    title="Transition1x",
    level_of_theory="ωB97X/6-31G(d)",
    citation=(
        "M. Schreiner, A. Bhowmik, T. Vegge, J. Busk, O. Winther, Transition1x - a dataset for "
        "building generalizable reactive machine learning potentials, Sci. Data 9, 779 (2022), "
        "doi:10.1038/s41597-022-01870-w"
    ),
    licence="see publisher",
    url="https://doi.org/10.6084/m9.figshare.19614657",
    units="eV, Å, eV/Å",
    layout=(
        "HDF5: /data/<formula>/<reaction>/{atomic_numbers, positions, wB97x_6-31G(d).energy, "
        "wB97x_6-31G(d).forces}; /train, /val and /test hold links to the formulas"
    ),
    recognise=recognise,
    open=Transition1xFile,
    write=write,
    suffixes=(".h5",),
    groups_families=True,
)
