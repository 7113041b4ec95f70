"""Settings and small structures that several tests share."""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import multiprocessing.context
import os
import subprocess
from collections.abc import Callable, Iterator
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

#: Takes a name and what fills a folder; returns the folder.
MakeOnce = Callable[[str, Callable[[Path], object]], Path]
CONTEXTS = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
SPAWN = CONTEXTS["spawn"]
SHARED = Path(__file__).resolve().parents[2] / "shared"


# How many examples a property is tried on, chosen by --hypothesis-profile: the same each time
# by default, other ones each time where there is time. A busy machine is slow now and then;
# that fails no law.
settings.register_profile("quick", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=300, print_blob=True)
settings.load_profile("quick")


def pytest_configure() -> None:
    torch.set_num_threads(1)  # one thread a process: the tests run several processes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs is not to be had: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Make a folder once for all processes of a run: ``made_once("data", write_data)``.

    Whoever asks first makes it, the others wait. It is everybody's: copy what is to be changed.
    """
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / f"once-{name}", root / f"once-{name}.done"
        with (root / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return make_once


@pytest.fixture(scope="session", autouse=True)
def _forked_workers() -> Iterator[None]:
    """Fork worker processes off one that has imported everything, which each would take 5 s for.

    ``spawned_workers`` gives a test what a user has.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["mace.modules", "labelwise.studies.comparison.running"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONTEXTS, "spawn", server)
        yield


@pytest.fixture
def spawned_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTEXTS, "spawn", SPAWN)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the library tells its loggers, line by line, as the test goes on."""
    caplog.set_level(logging.INFO, "labelwise")
    lines: list[str] = []
    caplog.handler.addFilter(lambda record: lines.append(record.getMessage()) or True)
    return lines


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


@pytest.fixture(scope="session")
def campaign_data(made_once: MakeOnce) -> Path:
    """Labelled pool, train, valid and test for campaigns and studies, and a model."""
    from tests.campaign.building import write_data

    return made_once("campaign-data", write_data)
