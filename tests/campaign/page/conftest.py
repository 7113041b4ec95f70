"""One campaign in which labels fail and structures say where they are from, for all tests."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labelwise.campaign.loop import RunOptions, run_campaign
from labelwise.campaign.page import gather_campaign
from labelwise.campaign.saved import SavedCampaign, read_saved
from labelwise.campaign.state import read_state
from labelwise.pages.document import Document
from labelwise.structures import read_structures, write_structures
from tests.campaign.building import make_structures, write_campaign, write_data
from tests.conftest import MakeOnce

FAMILIES = ("water", "methane", "<b>carbon & dioxide</b>", "methanol")
#: Finished rounds after round 0.
N_ROUNDS = 2


def tell_more(path: Path, *, spoilt: bool = False) -> None:
    """Give structures a family and a place along a path; take every third label away."""
    structures = read_structures(path)
    for i, atoms in enumerate(structures):
        atoms.info["family"] = FAMILIES[i % len(FAMILIES)]
        atoms.info["image"] = i // len(FAMILIES)
        if spoilt and i % 3 == 0:
            atoms.info["REF_energy"] = float("nan")
    write_structures(path, structures)


@pytest.fixture(scope="session")
def files(made_once: MakeOnce) -> Path:
    """Train, valid, test of 20 structures, a pool in which labels are missing, and a model."""

    def make(folder: Path) -> None:
        write_data(folder, n_pool=24)
        write_structures(folder / "test.extxyz", make_structures(20, seed=9))
        tell_more(folder / "test.extxyz")
        tell_more(folder / "pool.extxyz", spoilt=True)

    return made_once("page-data", make)


def run_quietly(directory: Path, n_rounds: int | None = None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_campaign(directory, RunOptions(n_rounds=n_rounds, survey=True))


@pytest.fixture(scope="session")
def finished(files: Path, made_once: MakeOnce) -> Path:
    """A campaign of two rounds; not to be changed."""

    def make(directory: Path) -> None:
        selection = {"rule": "pv", "batch_size": 4, "n_reserve": 1}
        write_campaign(directory, files, selection=selection, stop={"rounds": N_ROUNDS})
        run_quietly(directory)

    return made_once("page-campaign", make)


@pytest.fixture(scope="session")
def saved(finished: Path) -> SavedCampaign:
    return read_saved(read_state(finished))


@pytest.fixture(scope="session")
def document(finished: Path) -> Document:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gather_campaign(finished)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Callable[[], Path]:
    """Make copies of the finished campaign that may be changed."""

    def copy() -> Path:
        directory = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(finished, directory)
        return directory

    return copy


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
