from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.labelling.slurm.cluster import Cluster, find_obstacle


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A SLURM of one node with two cores."""
    obstacle = find_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(made.conf))
        made.start()
        yield made
        made.stop()


@pytest.fixture
def no_jobs_left(cluster: Cluster) -> Iterator[None]:
    """See that a test leaves no job behind."""
    yield
    cluster.wait(lambda: not cluster.list_jobs(), "jobs are left behind", limit_s=20.0)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the head of PATH, for commands that stand before those of SLURM."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder
