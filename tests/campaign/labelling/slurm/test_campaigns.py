"""Campaigns whose labels come from a real SLURM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelwise.campaign.labelling import LabellingError
from labelwise.campaign.lock import campaign_lock
from labelwise.campaign.loop import RunOptions, run_campaign
from labelwise.campaign.saved import read_saved
from labelwise.campaign.state import BATCH, CampaignState, read_state
from labelwise.cli import main
from labelwise.structures import read_structures, write_structures
from tests.campaign.building import write_campaign
from tests.campaign.labelling.slurm.cluster import Cluster
from tests.campaign.labelling.slurm.traced import read_trace

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("no_jobs_left")]
TBLITE = {"calculator": "tblite.ase.TBLite", "arguments": {"verbosity": 0}}
SLURM = {"kind": "slurm", "max_jobs": 4, "poll_s": 1.0, "settle_s": 2.0, "time": "10m"}


def run(directory: Path, data: Path, labeller: dict[str, Any], n_rounds: int) -> CampaignState:
    checks = {"max_energy_deviation": 1e9}
    write_campaign(directory, data, labeller={**labeller, **checks}, stop={"rounds": n_rounds})
    run_campaign(directory)
    return read_state(directory)


def test_three_rounds_with_tblite_equal_those_of_local_processes(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tblite")
    local = run(tmp_path / "local", data, {"kind": "calculator", **TBLITE}, 3)
    queued = run(tmp_path / "queued", data, {**SLURM, **TBLITE}, 3)
    assert len(queued.rounds) == 4
    assert local.labels.keys() == queued.labels.keys()
    assert len(queued.labels) == 9
    for key, record in local.labels.items():
        other = queued.labels[key]
        assert record["energy"] == other["energy"]
        assert np.array_equal(record["forces"], other["forces"])
        assert record["structure"] == other["structure"]
        assert record["level"] == other["level"]
    for n_round in range(4):
        folders = (local.round_folder(n_round), queued.round_folder(n_round))
        one, two = (json.loads((folder / BATCH).read_text()) for folder in folders)
        assert one == two


def test_no_wait_status_and_going_on(
    cluster: Cluster, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4 until the batch is whole; status shows jobs, labels and core-hours."""
    trace = tmp_path / "trace"
    pool = read_structures(data / "pool.extxyz")
    write_structures(tmp_path / "pool.extxyz", pool)
    labeller = {
        **SLURM,
        "calculator": "tests.campaign.labelling.slurm.traced.Traced",
        "arguments": {"trace": str(trace), "seconds": 2.0},
        "max_energy_deviation": 1e9,
        "structures_per_job": 1,
    }
    sections: dict[str, Any] = {"labeller": labeller, "stop": {"rounds": 1}}
    directory = write_campaign(tmp_path / "campaign", data, **sections)
    command = ["campaign", "run", str(directory), "--no-wait", "--no-report", "--quiet"]
    assert main(command) == 4
    capsys.readouterr()
    assert main(["campaign", "status", str(directory)]) == 0
    shown = capsys.readouterr().out
    assert "jobs: " in shown
    assert "0 of 1 labels have come" in shown  # the calculator is tried first
    n_runs = 1
    while main(command) == 4:
        n_runs += 1
        assert n_runs < 60
        cluster.wait(lambda: not cluster.list_jobs(), "jobs do not end")
    state = read_state(directory)
    assert len(state.rounds) == 2
    assert len(state.labels) == 3
    ends = read_trace(trace)["end"]
    assert len(ends) == len(set(ends))
    assert n_runs >= 3
    assert read_saved(state).queue is None


def test_nothing_but_failures_cancels_the_rest(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    labeller = {
        **SLURM,
        "calculator": "tests.campaign.calculators.Faulty",
        "arguments": {"trace": str(tmp_path / "trace")},
        "max_failures_in_a_row": 3,
        "n_retries": 0,
        "structures_per_job": 1,
    }
    directory = write_campaign(tmp_path / "campaign", data, labeller=labeller)
    with pytest.raises(LabellingError, match="pseudopotential"):
        run_campaign(directory)
    n_before = (tmp_path / "trace").stat().st_size
    assert 1 <= n_before <= 3 + 1
    with pytest.raises(LabellingError, match="in a row"):
        run_campaign(directory, RunOptions(retry_failed=True))
    assert (tmp_path / "trace").stat().st_size > n_before


def test_cancelled_by_a_command_and_gone_on(
    cluster: Cluster, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace"
    labeller = {
        **SLURM,
        "calculator": "tests.campaign.labelling.slurm.traced.Traced",
        "arguments": {"trace": str(trace), "seconds": 60.0},
        "max_energy_deviation": 1e9,
    }
    directory = write_campaign(tmp_path / "campaign", data, labeller=labeller, stop={"rounds": 1})
    command = ["campaign", "run", str(directory), "--no-wait", "--no-report", "--quiet"]
    assert main(["campaign", "cancel", str(directory)]) == 0  # nothing is to be cancelled
    for n_runs in (1, 2):
        assert main(command) == 4
        cluster.wait(lambda n=n_runs: len(read_trace(trace)["begin"]) == n, "no job")
        with campaign_lock(directory):
            assert main(["campaign", "cancel", str(directory)]) == 1
        assert "in use by" in capsys.readouterr().err
        assert main(["campaign", "cancel", str(directory)]) == 0
        assert "1 parts of jobs are cancelled" in capsys.readouterr().err
        cluster.wait(lambda: not cluster.list_jobs(), "the job goes on")
    assert not read_trace(trace)["end"]
    assert main(["campaign", "cancel", str(directory)]) == 0
    local = write_campaign(tmp_path / "local", data)
    assert main(["campaign", "cancel", str(local)]) == 1
    assert "no jobs to be cancelled" in capsys.readouterr().err
