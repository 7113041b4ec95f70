"""Small campaigns: molecules with Morse labels, a random MACE, a few updates a round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ase import Atoms
from ase.build import molecule
from ase.calculators.morse import MorsePotential

from labelwise.campaign.state import BATCH, FINETUNE, LABELS, MEASURE, PICKS, ROUNDS
from labelwise.structures import write_structures
from tests.potentials.models import make_mace

NAMES = ("H2O", "CH4", "CO2", "CH3OH")


def make_structures(n: int, *, seed: int = 0, labelled: bool = True) -> list[Atoms]:
    """Return rattled molecules of H, C and O; labels by a Morse potential."""
    rng = np.random.default_rng(seed)
    structures = []
    for i in range(n):
        atoms = molecule(NAMES[i % len(NAMES)])
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        atoms.info["number"] = i
        if labelled:
            label(atoms)
        structures.append(atoms)
    return structures


def label(atoms: Atoms) -> None:
    """Add Morse labels to a structure."""
    copy = atoms.copy()
    copy.calc = MorsePotential(epsilon=2.0, r0=1.2, rho0=3.0)
    atoms.info["REF_energy"] = float(copy.get_potential_energy()) - 30.0 * len(atoms)
    atoms.arrays["REF_forces"] = copy.get_forces()


def write_data(folder: Path, *, n_pool: int = 20, labelled: bool = True) -> None:
    """Write pool, train, valid, test and a model."""
    folder.mkdir(parents=True, exist_ok=True)
    structures = make_structures(n_pool + 12)
    pool = structures[12:]
    if not labelled:
        for atoms in pool:
            del atoms.info["REF_energy"], atoms.arrays["REF_forces"]
    write_structures(folder / "train.extxyz", structures[:4])
    write_structures(folder / "valid.extxyz", structures[4:8])
    write_structures(folder / "test.extxyz", structures[8:12])
    write_structures(folder / "pool.extxyz", pool)
    torch.save(make_mace(), folder / "small.model")


def make_config(files: Path, /, **sections: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration; keyword arguments are merged into its sections."""
    config: dict[str, Any] = {
        "seed": 3,
        "model": {"path": str(files / "small.model"), "trust": True, "device": "cpu"},
        "data": {
            "pool": [str(files / "pool.extxyz")],
            "train": [str(files / "train.extxyz")],
            "valid": {"files": [str(files / "valid.extxyz")]},
            "test": {"files": [str(files / "test.extxyz")]},
        },
        "selection": {"rule": "lcmd", "batch_size": 3, "n_reserve": 2},
        "labeller": {"kind": "replay"},
        "finetune": {"max_updates": 4, "batch_size": 2, "max_validations": 2},
        "stop": {"rounds": 2},
    }
    for name, section in sections.items():
        replaced = name in config and name != "labeller"
        config[name] = {**config[name], **section} if replaced else section
    return config


def write_campaign(directory: Path, files: Path, /, **sections: dict[str, Any]) -> Path:
    """Write a campaign's configuration and return its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "campaign.yaml").write_text(yaml.safe_dump(make_config(files, **sections)))
    return directory


def result_of(directory: Path) -> dict[str, bytes]:
    """Return what must be equal, byte for byte, however often a campaign was interrupted."""
    names = (PICKS, BATCH, FINETUNE, MEASURE, "batch.extxyz")
    result = {
        str(path.relative_to(directory)): path.read_bytes()
        for name in names
        for path in sorted(directory.glob(f"round_*/{name}"))
    }
    labels = directory / LABELS
    result[LABELS] = labels.read_bytes() if labels.exists() else b""
    rounds = [json.loads(line) for line in (directory / ROUNDS).read_text().splitlines()]
    for record in rounds:
        del record["stages"], record["files"]["model.pt"]  # times; a zip holds its own name
    result[ROUNDS] = json.dumps(rounds).encode()
    return result
