"""Small sets of labelled reactions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule

from labelwise.structures import write_structures

NAMES = ("H2O", "CH4", "CO2", "CH3OH", "NH3", "HCN")


def make_reaction(name: str, n: int, *, seed: int) -> list[Atoms]:
    """Return a molecule along a path, with random labels."""
    rng = np.random.default_rng(seed)
    structures = []
    for frame in range(n):
        atoms = molecule(NAMES[seed % len(NAMES)])
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        atoms.info |= {"reaction": name, "frame": frame, "note": f"{name} {frame}"}
        atoms.info["REF_energy"] = float(rng.normal()) - 10.0 * len(atoms)
        atoms.arrays["REF_forces"] = rng.normal(size=(len(atoms), 3))
        structures.append(atoms)
    return structures


def write_reactions(path: Path, sizes: Mapping[str, int]) -> list[Atoms]:
    """Write reactions of some sizes to a file and return them."""
    reactions = [make_reaction(name, n, seed=i) for i, (name, n) in enumerate(sizes.items())]
    structures = [atoms for reaction in reactions for atoms in reaction]
    write_structures(path, structures)
    return structures


def write_folder(folder: Path, *, n_pool: int = 120, n_train: int = 0) -> Path:
    """Write a folder with pool, validation and test set, and train if wanted."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [make_reaction(f"r{i}", n_pool // 4 + 8, seed=i) for i in range(4)]
    write_structures(folder / "pool.extxyz", [a for part in made for a in part[8:]])
    write_structures(folder / "valid.extxyz", [a for part in made for a in part[:2]])
    write_structures(folder / "test.extxyz", [a for part in made for a in part[2:6]])
    if n_train:
        train = [a for part in made for a in part[6:8]][:n_train]
        write_structures(folder / "train.extxyz", train)
    return folder
