"""GFN2-xTB labels and the geometry checks that the recipes share."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import covalent_radii
from ase.io import read, write
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import AllChem
from tblite.ase import TBLite

LEVEL = "GFN2-xTB (tblite, accuracy 0.1), charge 0, closed shell"
ELEMENTS = ("H", "C", "N", "O")
POSITION_DECIMALS = 8
FORCE_DECIMALS = 6
ENERGY_DECIMALS = 6


def make_calculator() -> Calculator:
    """Return a fresh GFN2-xTB calculator; energies in eV, forces in eV/Å."""
    return TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)


def seed_of(text: str, base: int) -> int:
    """Return a seed in [0, 2**31) that depends on the text and the base alone."""
    return zlib.crc32(f"{base}:{text}".encode()) & 0x7FFFFFFF


def embed(
    mol: Chem.Mol, n_conformers: int, seed: int, *, knowledge: bool = True
) -> list[NDArray[np.float64]]:
    """Return up to ``n_conformers`` geometries, each (n_atoms, 3) in Å.

    With ``knowledge`` the torsions follow ETKDG, without it distances alone are respected, which
    finds the rarer conformers too.
    """
    params = AllChem.ETKDGv3() if knowledge else AllChem.EmbedParameters()
    params.randomSeed = seed
    copy = Chem.Mol(mol)
    ids = list(AllChem.EmbedMultipleConfs(copy, n_conformers, params))
    if not ids:
        params.useRandomCoords = True
        ids = list(AllChem.EmbedMultipleConfs(copy, n_conformers, params))
    return [np.asarray(copy.GetConformer(i).GetPositions()) for i in ids]


def bonded(atoms: Atoms, scale: float = 1.3) -> NDArray[np.bool_]:
    """Return the (n, n) matrix of pairs closer than ``scale`` times their covalent radii."""
    radii = covalent_radii[atoms.numbers]
    close = atoms.get_all_distances() < scale * (radii[:, None] + radii[None, :])
    np.fill_diagonal(close, val=False)
    return close


def n_fragments(atoms: Atoms, scale: float) -> int:
    """Return the number of connected fragments under the criterion of ``bonded``."""
    neighbours = bonded(atoms, scale)
    left, count = set(range(len(atoms))), 0
    while left:
        count += 1
        stack = [left.pop()]
        while stack:
            near = set(np.flatnonzero(neighbours[stack.pop()])) & left
            left -= near
            stack.extend(near)
    return count


def label(atoms: Atoms, **info: object) -> Atoms:
    """Return a labelled copy, rounded as it is written.

    Args:
        atoms: A geometry with a GFN2-xTB calculator attached.
        info: Keys to put into ``info``.

    Returns:
        A copy without calculator: positions (n, 3) Å to 1e-8, ``REF_forces`` (n, 3) eV/Å to 1e-6,
        ``REF_energy`` eV to 1e-6. The rounding moves an energy by less than that of the text.
    """
    frame = Atoms(atoms.get_chemical_symbols(), np.round(atoms.positions, POSITION_DECIMALS))
    frame.info.update(info)
    frame.info["REF_energy"] = round(float(atoms.get_potential_energy()), ENERGY_DECIMALS)
    frame.arrays["REF_forces"] = np.round(atoms.get_forces(), FORCE_DECIMALS)
    return frame


def isolated_atoms() -> list[Atoms]:
    """Return the labelled free atoms of H, C, N, O (``config_type=IsolatedAtom``)."""
    frames = []
    for symbol in ELEMENTS:
        atom = Atoms(symbol, positions=[[0.0, 0.0, 0.0]])
        atom.calc = make_calculator()
        frames.append(label(atom, config_type="IsolatedAtom"))
    return frames


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write extxyz whole or not at all, so that an interrupted run leaves no half file."""
    partial = path.with_suffix(".partial")
    write(partial, list(frames), format="extxyz")
    partial.replace(path)


def read_frames(path: Path) -> list[Atoms]:
    """Read every frame of an extxyz file."""
    frames: list[Atoms] = read(path, index=":", format="extxyz")
    return frames
