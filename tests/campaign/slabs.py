"""Data of slab campaigns: copper and silver with fixed bottom layers, EMT labels, two splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from labelwise.structures import write_structures
from tests.models import build_mace

#: What a study of slabs asks of its errors.
FREE = {"fixed_forces": "exclude", "energy_errors": "per-atom"}


def make_slab(number: int) -> Atoms:
    """Return a rattled 2x2x2 slab or a triclinic crystal; bottom atoms fixed, no labels."""
    rng = np.random.default_rng(number)
    if number % 4 == 3:
        atoms = bulk("Cu", a=3.7).repeat((2, 1, 2))
    else:
        atoms = fcc111("Cu", (2, 2, 2), vacuum=6.0)
        if number % 4 == 1:
            add_adsorbate(atoms, "O", 1.4, "fcc")
        atoms.info.clear()
    atoms.symbols[rng.integers(4)] = "Ag"
    atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
    fixed = np.argsort(atoms.positions[:, 2], kind="stable")[: len(atoms) // 2]
    atoms.set_constraint(FixAtoms(np.sort(fixed)))
    atoms.set_tags(rng.integers(3, size=len(atoms)))
    atoms.info.update(number=number, split="val_ood" if number % 4 == 1 else "val_id")
    atoms.info["virial"] = rng.normal(size=(3, 3))
    return atoms


def label(atoms: Atoms) -> Atoms:
    """Add EMT labels, of fixed atoms too; returns the structure."""
    copy = atoms.copy()
    copy.calc = EMT()
    atoms.info["REF_energy"] = float(copy.get_potential_energy())
    atoms.arrays["REF_forces"] = copy.get_forces(apply_constraint=False)
    return atoms


def write_slabs(folder: Path, *, n_pool: int = 10, labelled: bool = True) -> None:
    """Write pool, train, valid, test and a model."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = {"train": range(4), "valid": range(4, 7), "test": range(8, 14)}
    for name, numbers in sets.items():
        write_structures(folder / f"{name}.extxyz", [label(make_slab(i)) for i in numbers])
    pool = [make_slab(i) for i in range(20, 20 + n_pool)]
    write_structures(folder / "pool.extxyz", map(label, pool) if labelled else pool)
    model = build_mace(channels=4, elements=(8, 29, 47), cutoff=4.0, dtype=torch.float64)
    torch.save(model, folder / "small.model")


def slab_sections(files: Path, **more: Any) -> dict[str, Any]:
    """Return the sections in which a campaign of slabs differs from ``make_config``'s."""
    test = {"files": [str(files / "test.extxyz")], "split_key": "split"}
    sections = {"data": {"test": test}, "measure": FREE, "stop": {"rounds": 1}}
    return {**sections, **more}
