"""Settings and small structures that several tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import settings

from labelwise.potentials import Potential, load_potential
from tests.models import build_mace

# Pages are opened by tests of several rooms.
pytest_plugins = ["tests.pages.browser.fixtures"]

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow; run with --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def pytest_configure() -> None:
    torch.set_num_threads(1)  # one thread a process: the tests run several processes
    # A busy machine is slow now and then; that fails no law.
    settings.register_profile("labelwise", deadline=None)
    settings.load_profile("labelwise")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def water() -> Atoms:
    return molecule("H2O")


@pytest.fixture
def rattled_molecules(rng: np.random.Generator) -> list[Atoms]:
    """Thirty rattled copies of six molecules of H, C, N and O."""
    names = ["H2O", "CH4", "CH3OH", "HCN", "C2H4", "CH3CHO"]
    structures = []
    for i in range(30):
        atoms = molecule(names[i % len(names)])
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        atoms.info["family"] = names[i % len(names)]
        structures.append(atoms)
    return structures


@pytest.fixture
def diamond() -> Atoms:
    return bulk("C", "diamond", a=3.57)


@pytest.fixture
def shared_data() -> Path:
    """The development data, which are not part of the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the development data are not here")
    return SHARED / "data"


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MACE model of H, C, N, O with random weights, as mace-torch saves it."""
    path = tmp_path_factory.mktemp("models") / "small.model"
    torch.save(build_mace(channels=8), path)
    return path


@pytest.fixture(scope="session")
def potential(model_path: Path) -> Potential:
    return load_potential(model_path, trust=True)
