"""Labelled structures out of nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.build import molecule

from labelwise.structures.datasets.base import Entry, LabelledStructure, make_structure

MOLECULES = ("H2O", "CH4", "CO2", "CH3OH", "NH3", "HCN")


def make_path(
    family: str, n: int, *, seed: int, start: int = 0, **fields: Any
) -> list[LabelledStructure]:
    """Return a molecule along a path, with energies that a neutral molecule may have."""
    rng = np.random.default_rng(seed)
    made = []
    for frame in range(n):
        atoms = molecule(MOLECULES[seed % len(MOLECULES)])
        entry = Entry(start + frame, f"{family}/{frame}", family=family, order=frame, **fields)
        made.append(
            make_structure(
                entry,
                f"{family}@{frame}",
                numbers=atoms.numbers,
                positions=atoms.positions + rng.normal(scale=0.1, size=(len(atoms), 3)),
                energy=energy_of(atoms.numbers) + float(rng.normal()),
                forces=rng.normal(size=(len(atoms), 3)),
            )
        )
    return made


def make_paths(
    sizes: Mapping[str, int], *, first_seed: int = 0, **fields: Any
) -> list[LabelledStructure]:
    """Return several paths one after the other."""
    made: list[LabelledStructure] = []
    for number, (family, n) in enumerate(sizes.items(), start=first_seed):
        made += make_path(family, n, seed=number, start=len(made), **fields)
    return made


def energy_of(numbers: np.ndarray) -> float:
    """Return about the total energy of neutral atoms, eV."""
    per_atom = {1: -13.6, 6: -1029.4, 7: -1484.9, 8: -2041.8}
    return sum(per_atom[int(number)] for number in numbers)
