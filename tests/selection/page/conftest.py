from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from labelwise.potentials import Potential, load_potential
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import to_json
from labelwise.selection.acquire import acquire
from labelwise.selection.input_files import describe_files
from labelwise.selection.measures import write_measures
from labelwise.selection.record import summarise_acquisition
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import iter_frames, read_sources, write_structures

#: Makes a selection in a folder and returns its summary.
Select = Callable[..., Path]


@pytest.fixture(scope="session")
def demo() -> Potential:
    return load_potential("demo")


@pytest.fixture(scope="session")
def molecules() -> list[Atoms]:
    """Fifty rattled molecules, among them two copies and one that is no structure."""
    rng = np.random.default_rng(3)
    names = ["H2O", "CH4", "CH3OH", "HCN", "C2H4"]
    structures = []
    for number in range(50):
        atoms = molecule(names[number % len(names)])
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        atoms.info |= {"family": names[number % len(names)], "step": number, "REF_energy": -1.5}
        atoms.arrays["REF_forces"] = rng.normal(scale=0.1, size=atoms.positions.shape)
        structures.append(atoms)
    structures[20] = structures[19].copy()
    structures[30] = Atoms("H", info={"family": "atom"})
    return structures


@pytest.fixture
def folder(tmp_path: Path, molecules: list[Atoms], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with seven labelled structures and a pool of two files."""
    monkeypatch.chdir(tmp_path)
    write_structures("train.extxyz", molecules[:7])
    write_structures("pool_a.extxyz", molecules[7:35])
    write_structures("pool_b.extxyz", molecules[35:])
    return tmp_path


POOL = ["pool_a.extxyz", "pool_b.extxyz"]
TRAIN = ["train.extxyz"]


def select_in_folder(
    settings: AcquisitionSettings,
    potential: Potential | None,
    *,
    pool: list[str] = POOL,
    train: list[str] = TRAIN,
    model: str | None = "demo",
    **more: object,
) -> Path:
    """Select from the files of the working directory, and write batch and summary."""
    acquisition = acquire(
        iter_frames(pool),
        iter_frames(train) if train else (),
        settings,
        potential=potential,
        measured=True,
    )
    chosen = acquisition.annotate(read_sources([pick.source for pick in acquisition.picks]))
    write_structures("batch.extxyz", chosen)
    inputs = {
        "pool": pool,
        "train": train,
        "model": model,
        "out": "batch.extxyz",
        "folder": str(Path.cwd()),
        "files": {"pool": describe_files(pool), "train": describe_files(train)},
        **more,
    }
    summary = Path("batch.json")
    record = summarise_acquisition(acquisition, settings, potential, inputs=inputs)
    write_text(summary, to_json(record))
    if acquisition.measures is not None:
        places = [pick.pool_index for pick in acquisition.picks]
        write_measures(summary.with_suffix(".npz"), acquisition.measures, places)
    return summary


@pytest.fixture
def select(folder: Path, demo: Potential) -> Select:
    def call(potential: Potential | None = demo, **changes: object) -> Path:
        more = {
            key: changes.pop(key)
            for key in ("pool", "train", "model", "store", "store_dtype")
            if key in changes
        }
        settings = replace(AcquisitionSettings(n_select=5), **changes)
        return select_in_folder(settings, potential, **more)

    return call
