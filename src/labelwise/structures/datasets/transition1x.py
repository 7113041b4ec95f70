"""Transition1x: images of reaction paths, in one HDF5 file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from labelwise.errors import DataSetError
from labelwise.structures.datasets.base import Entry, make_format
from labelwise.structures.datasets.hdf5 import (
    Column,
    GroupedFile,
    reading_errors,
    recognise_hdf5,
)

_SPLITS = ("train", "val", "test")


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

    positions = Column("positions")
    energies = Column("wB97x_6-31G(d).energy")
    forces = Column("wB97x_6-31G(d).forces")
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

    def _describe(
        self,
        group: str,
        found: Any,  # noqa: ARG002
        numbers: np.ndarray,
        where: str,
    ) -> tuple[Entry, Mapping[str, Any]]:
        reaction = self._reactions[group]
        _check_formula(reaction.formula, numbers, where)
        name = f"{reaction.formula}/{reaction.name}"
        entry = Entry(0, name, reaction.family, split=reaction.split)
        return entry, {"reaction": reaction.family, "formula": reaction.formula}


def recognise(path: Path) -> bool:
    """Return whether a path is an HDF5 file with a group ``data``.

    A file with the suffix ``.h5`` that cannot be opened is taken, so that opening it says what
    is wrong.

    Raises:
        MissingDependencyError: It is HDF5, and h5py is not installed.
    """
    return recognise_hdf5(path, ".h5", lambda file: "data" in file)


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


FORMAT = make_format(
    "transition1x",
    recognise=recognise,
    opener=Transition1xFile,
)
