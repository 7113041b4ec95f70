"""Files laid out as Transition1x, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

from labelwise.structures.datasets.base import LabelledStructure

ENERGY, FORCES = "wB97x_6-31G(d).energy", "wB97x_6-31G(d).forces"


def write_transition1x(path: Path, structures: Iterable[LabelledStructure]) -> Path:
    """Write structures whose families come together, without the ends of their paths."""
    with h5py.File(path, "w") as file:
        groups = {split: file.create_group(split) for split in ("data", "train", "val", "test")}
        for family, members in groupby(structures, key=lambda each: each.entry.family):
            images = list(members)
            formula = images[0].atoms.get_chemical_formula()
            group = groups["data"].require_group(formula).create_group(str(family))
            group["atomic_numbers"] = images[0].arrays.numbers
            group["positions"] = np.array([each.arrays.positions for each in images])
            group[ENERGY] = np.array([each.arrays.info["REF_energy"] for each in images])
            group[FORCES] = np.array([each.arrays.forces for each in images])
            split = images[0].entry.split
            if split is not None and formula not in groups[split]:
                groups[split][formula] = h5py.SoftLink(f"/data/{formula}")
    return path
