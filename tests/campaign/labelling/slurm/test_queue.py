"""What SLURM's answers mean, and that it is asked seldom."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from pydantic import ValidationError

from labelwise.campaign.atomic_io import write_json
from labelwise.campaign.labelling import Label, LabellingError, LabelStore, SlurmSettings, Task
from labelwise.campaign.labelling.slurm.following import FORGOTTEN, Follower, tell_apart
from labelwise.campaign.labelling.slurm.ledger import (
    SHORT_OF_TIME,
    Ledger,
    begun_file,
    end_file,
)
from labelwise.campaign.labelling.slurm.queue import Slurm, SubmissionError
from labelwise.campaign.labelling.slurm.submission import choose_size, list_user_options
from labelwise.campaign.labelling.store import LabelWriter
from labelwise.structures import Source

STEP = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-30T21:00:00 {}***"


@pytest.mark.parametrize(
    ("state", "line", "is_meant"),
    [
        ("FAILED", "slurmstepd: error: Exceeded job memory limit", "OUT_OF_MEMORY"),
        ("FAILED", "slurmstepd: error: Detected 1 oom-kill event(s) in step", "OUT_OF_MEMORY"),
        ("FAILED", "numpy: out of memory", "FAILED"),
        (FORGOTTEN, STEP.format("DUE TO TIME LIMIT "), "TIMEOUT"),
        (FORGOTTEN, STEP.format("DUE TO PREEMPTION "), "PREEMPTED"),
        (FORGOTTEN, STEP.format("DUE TO NODE FAILURE "), "NODE_FAIL"),
        (FORGOTTEN, STEP.format(""), "CANCELLED"),
        (FORGOTTEN, "", FORGOTTEN),
        ("TIMEOUT", STEP.format(""), "TIMEOUT"),
    ],
)
def test_ends_are_told_apart(state: str, line: str, is_meant: str) -> None:
    assert tell_apart(state, ["a code that talks", line]) == is_meant


def write_command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_answers_of_squeue(commands: Path) -> None:
    lines = (
        "lw-1-0001|12|0|RUNNING|None|1-02:03:04|8\n"
        "lw-1-0001|12|1|PENDING|JobHeldUser|0:00|8\n"
        "lw-1-0002|13|N/A|COMPLETED|None|0:05|1"
    )
    write_command(commands, "squeue", f"echo '{lines}'")
    snapshot = Slurm(1.0).ask(["lw-1-0001"])
    assert snapshot is not None
    assert snapshot.jobs.keys() == {"lw-1-0001"}
    running, held = snapshot.jobs["lw-1-0001"].values()
    assert (running.job_id, running.seconds, running.n_cpus) == ("12", 93784.0, 8)
    assert (running.is_held, held.is_held) == (False, True)


def test_what_users_set_for_their_own_looks_hides_no_job(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SQUEUE_PARTITION", "SQUEUE_USERS", "SCANCEL_INTERACTIVE"):
        monkeypatch.setenv(name, "x")
    write_command(commands, "squeue", "env | grep -q ^SQUEUE_ || echo 'a|1|0|RUNNING|None|0:01|1'")
    write_command(commands, "scancel", "! env | grep -q ^SCANCEL_")
    slurm = Slurm(1.0)
    snapshot = slurm.ask(["a"])
    assert snapshot is not None
    assert snapshot.jobs["a"][0].state == "RUNNING"
    assert slurm.cancel(["1_0"])


def test_labels_that_are_shown_late_are_waited_for(tmp_path: Path, commands: Path) -> None:
    """An element that was short of time: what it had begun is not submitted again."""
    settings = SlurmSettings(calculator="emt", settle_s=0.2)
    store, ledger = LabelStore(tmp_path / "store", settings), Ledger(tmp_path / "jobs")
    ledger.begin()
    tasks = {f"{n}": Task(f"{n}", Atoms("Cu", [[n, 0, 0]]), Source("pool", n)) for n in range(3)}
    job = ledger.plan([list(tasks)], 0)
    job.folder.mkdir()
    (job.folder / begun_file(0)).write_text("0\n1\n")
    write_json(job.folder / end_file(0), {"state": SHORT_OF_TIME, "seconds": 9.0, "n_cpus": 1})
    writer = LabelWriter(store, f"{job.name}-000")
    writer.append(tasks["0"], Label("0", -1.0, np.zeros((1, 3))))
    write_command(commands, "squeue", "exit 1")
    follower = Follower(settings, ledger, Slurm(60.0), store)
    assert not follower.look(tasks)
    assert job.open_elements == [0]
    writer.append(tasks["1"], Label("1", -1.0, np.zeros((1, 3))))
    assert follower.look(tasks)
    assert job.open_elements == []
    assert not ledger.blames
    writer.close()


@pytest.mark.parametrize("script", ["exit 1", "echo 'slurm_load_jobs error'", "echo 'a|b'"])
def test_no_answer_and_nonsense_say_nothing(commands: Path, script: str) -> None:
    write_command(commands, "squeue", script)
    assert Slurm(1.0).ask(["lw-1-0001"]) is None


def test_it_is_asked_seldom_and_more_seldom_when_it_is_silent(commands: Path) -> None:
    write_command(commands, "squeue", f"echo x >> {commands}/asked; exit 1")
    slurm = Slurm(0.2)
    began = time.monotonic()
    while time.monotonic() - began < 2.0:
        assert slurm.ask(["lw-1-0001"]) is None
        time.sleep(0.01)
    # After 0, 0.4, 0.4 + 0.8 and so on; ten times at the steady rate.
    assert len((commands / "asked").read_text().split()) <= 4


@pytest.mark.parametrize(
    ("script", "is_refusal"),
    [
        ("echo 'sbatch: error: invalid partition specified: x' >&2; exit 1", True),
        ("echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1", False),
        ("echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1", False),
        ("exit 1", False),
        ("echo nonsense", True),
    ],
)
def test_refusals_are_told_from_silence(commands: Path, script: str, is_refusal: bool) -> None:
    write_command(commands, "sbatch", script)
    with pytest.raises(SubmissionError) as caught:
        Slurm(1.0).submit(commands / "job.sh", [])
    assert caught.value.is_refusal == is_refusal


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabellingError, match="login node"):
        Slurm.require()


@pytest.mark.parametrize(
    ("options", "n", "n_free", "mean", "size"),
    [
        ({}, 100, 50, None, 2),
        ({"workers_per_job": 8}, 30, 50, None, 8),
        ({"structures_per_job": 7}, 100, 2, None, 7),
        ({"time": "1h"}, 5000, 50, 60.0, 30),  # half an hour of a minute each
        ({"time": "1h"}, 5000, 50, 0.001, 100),
        ({"time": "1h", "workers_per_job": 4}, 100, 1, 7200.0, 4),
    ],
)
def test_shards(options: dict, n: int, n_free: int, mean: float | None, size: int) -> None:
    assert choose_size(SlurmSettings(calculator="emt", **options), n, n_free, mean) == size


def test_time_limits_are_doubled_as_far_as_allowed() -> None:
    settings = SlurmSettings(calculator="emt", time="90s", max_time="5m")
    assert [settings.limit_minutes(n) for n in range(4)] == [2, 3, 5, 5]
    assert SlurmSettings(calculator="emt").limit_minutes(3) is None
    with pytest.raises(ValidationError):
        SlurmSettings(calculator="emt", time="4 days")


@pytest.mark.parametrize("name", ["job-name", "--array", "output", "clusters", "time"])
def test_options_by_which_jobs_would_be_lost_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="is set by the labeller; use"):
        SlurmSettings(calculator="emt", sbatch={name: "x"})


def test_options_of_sbatch() -> None:
    given = {"account": "chem", "--mem": "4G", "exclusive": True, "hold": False, "nice": 3}
    words = ["--account=chem", "--mem=4G", "--exclusive", "--nice=3"]
    assert list_user_options(given) == words
