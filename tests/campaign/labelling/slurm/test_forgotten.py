"""A controller that forgets jobs that ended, as every one does after some minutes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelwise.campaign.labelling import LabelsPending
from labelwise.campaign.labelling.slurm.ledger import Ledger
from tests.campaign.labelling.slurm.cluster import Cluster, find_obstacle
from tests.campaign.labelling.slurm.test_slurm import (
    check_labels,
    collect,
    list_ends,
    make_labeller,
    make_task,
)
from tests.campaign.labelling.slurm.traced import read_trace

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    obstacle = find_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    made = Cluster(tmp_path_factory.mktemp("forgetful"), min_job_age=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(made.conf))
        made.start()
        yield made
        made.stop()


def find_process(words: str) -> int:
    """Return the process whose command line contains words."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if words in line and "labelling.slurm.shard" in line:
            return int(path.parent.name)
    raise AssertionError(words)


def test_a_killed_job_that_nobody_remembers_is_submitted_again(
    forgetful: Cluster, tmp_path: Path
) -> None:
    tasks = [make_task(i, seconds=1.0) for i in range(6)]
    trace = tmp_path / "trace"
    with pytest.raises(LabelsPending):
        collect(make_labeller(tmp_path, wait=False, structures_per_job=6), tasks)
    forgetful.wait(lambda: len(read_trace(trace)["end"]) >= 2, "nothing is calculated")
    (job,) = Ledger(tmp_path / "slurm").jobs.values()
    os.kill(find_process(str(job.folder)), signal.SIGKILL)
    known = ("squeue", "-h", "-t", "all", f"--name={job.name}")
    forgetful.wait(lambda: not forgetful.run(*known).strip(), "it is remembered", limit_s=120.0)
    check_labels(collect(make_labeller(tmp_path, structures_per_job=6), tasks), tasks)
    assert "FORGOTTEN" in list_ends(tmp_path)
    begun = read_trace(trace)["begin"]
    again = [number for number in set(begun) if begun.count(number) > 1]
    assert len(again) <= 1  # what was in flight
    forgetful.wait(lambda: not forgetful.list_jobs(), "a job is left", limit_s=20.0)


def test_jobs_that_ended_and_were_forgotten_are_not_submitted_again(
    forgetful: Cluster, tmp_path: Path
) -> None:
    tasks = [make_task(i) for i in range(4)]
    with pytest.raises(LabelsPending):
        collect(make_labeller(tmp_path, wait=False), tasks)
    (job,) = Ledger(tmp_path / "slurm").jobs.values()
    known = ("squeue", "-h", "-t", "all", f"--name={job.name}")
    forgetful.wait(lambda: not forgetful.run(*known).strip(), "it is remembered", limit_s=120.0)
    check_labels(collect(make_labeller(tmp_path), tasks), tasks)
    assert sorted(read_trace(tmp_path / "trace")["begin"]) == list(range(4))
    assert len(Ledger(tmp_path / "slurm").jobs) == 1
