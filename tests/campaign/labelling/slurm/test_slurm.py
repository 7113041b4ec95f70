"""Labels from a real SLURM: what is asked for is calculated once, and no job is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from labelwise.campaign.labelling import (
    Failure,
    Label,
    LabellingError,
    LabelsPending,
    Outcome,
    SlurmLabeller,
    SlurmSettings,
    Task,
)
from labelwise.campaign.labelling.slurm.ledger import Ledger
from labelwise.errors import WriteError
from labelwise.structures import Source, hash_structure, write_structures
from tests.campaign.labelling.slurm.cluster import Cluster
from tests.campaign.labelling.slurm.traced import read_trace

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("no_jobs_left")]
TRACED = "tests.campaign.labelling.slurm.traced.Traced"
ROOT = Path(__file__).parents[4]


def make_task(number: int, **info: Any) -> Task:
    atoms = molecule("H2O")
    atoms.positions[0, 0] += 0.01 * number
    atoms.info |= {"number": number, **info}
    return Task(hash_structure(atoms), atoms, Source("pool", number))


def make_labeller(folder: Path, *, wait: bool = True, **options: Any) -> SlurmLabeller:
    usual = {
        "calculator": TRACED,
        "arguments": {"trace": str(folder / "trace"), "seconds": 0.1},
        "max_jobs": 4,
        "poll_s": 1.0,
        "settle_s": 2.0,
        "n_retries": 0,
        "time": "10m",
    }
    settings = SlurmSettings(**{**usual, **options})
    return SlurmLabeller(settings, folder, folder, wait=wait)


def collect(labeller: SlurmLabeller, tasks: list[Task]) -> dict[str, Outcome]:
    outcomes = list(labeller.label(deque(tasks)))
    assert sorted(o.key for o in outcomes) == sorted(task.key for task in tasks)
    return {outcome.key: outcome for outcome in outcomes}


def check_labels(found: dict[str, Outcome], tasks: list[Task]) -> None:
    for task in tasks:
        label = found[task.key]
        assert isinstance(label, Label)
        assert label.energy == float((task.atoms.positions**2).sum())


def list_ends(folder: Path) -> list[str]:
    """Return how the elements of all jobs ended."""
    return [
        end["state"] for job in Ledger(folder / "slurm").jobs.values() for end in job.ends.values()
    ]


def test_labels_come_from_the_queue_and_failures_with_reasons(
    cluster: Cluster, tmp_path: Path
) -> None:
    tasks = [make_task(i) for i in range(10)]
    bad = Task("bad", molecule("CH4"), Source("pool", 10))  # no number: raises KeyError
    found = collect(make_labeller(tmp_path), [*tasks, bad])
    check_labels(found, tasks)
    failure = found["bad"]
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.n_tries) == ("exception", 1)
    assert "KeyError" in failure.detail
    assert sorted(read_trace(tmp_path / "trace")["end"]) == list(range(10))
    assert set(list_ends(tmp_path)) == {"DONE"}
    # Asked again, labels are there already; the failure was told, and is calculated anew.
    n_jobs = len(Ledger(tmp_path / "slurm").jobs)
    again = collect(make_labeller(tmp_path), [*tasks, bad])
    assert isinstance(again["bad"], Failure)
    assert len(Ledger(tmp_path / "slurm").jobs) == n_jobs + 1
    assert len(read_trace(tmp_path / "trace")["end"]) == 10


def test_without_waiting_the_next_call_attaches(cluster: Cluster, tmp_path: Path) -> None:
    tasks = [make_task(i) for i in range(6)]
    with pytest.raises(LabelsPending, match="6 structures"):
        collect(make_labeller(tmp_path, wait=False), tasks)
    assert cluster.list_jobs()
    check_labels(collect(make_labeller(tmp_path), tasks), tasks)
    assert sorted(read_trace(tmp_path / "trace")["begin"]) == list(range(6))
    assert len(Ledger(tmp_path / "slurm").jobs) == 1


def test_a_calculator_that_cannot_be_made_ends_all_jobs(cluster: Cluster, tmp_path: Path) -> None:
    tasks = [make_task(i) for i in range(8)]
    labeller = make_labeller(tmp_path, calculator="no_such_package.Calculator")
    with pytest.raises(LabellingError, match=r"no_such_package.*on a node"):
        collect(labeller, tasks)


def test_what_slurm_refuses_is_said(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(LabellingError, match="invalid partition"):
        collect(make_labeller(tmp_path, partition="nowhere"), [make_task(0)])
    check_labels(collect(make_labeller(tmp_path, partition="p"), [make_task(0)]), [make_task(0)])


REFUSING = """#!/bin/sh
# Refuses the second job, as a limit of jobs does.
n=$(($(cat {count} 2>/dev/null || echo 0) + 1))
echo $n > {count}
[ $n = 2 ] && {{ echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; }}
exec {sbatch} "$@"
"""


def test_a_refusal_leaves_jobs_that_run(cluster: Cluster, tmp_path: Path, commands: Path) -> None:
    script = commands / "sbatch"
    script.write_text(REFUSING.format(count=tmp_path / "count", sbatch=shutil.which("sbatch")))
    script.chmod(0o755)
    tasks = [make_task(0), make_task(1, seconds=8.0), *(make_task(i) for i in range(2, 5))]
    labeller = make_labeller(tmp_path, max_jobs=2, structures_per_job=1)
    check_labels(collect(labeller, tasks), tasks)
    trace = read_trace(tmp_path / "trace")
    assert sorted(trace["begin"]) == sorted(trace["end"]) == list(range(5))
    assert int((tmp_path / "count").read_text()) > 2


def test_cancelled_jobs_are_submitted_by_the_next_run_only(
    cluster: Cluster, tmp_path: Path
) -> None:
    tasks = [make_task(i, seconds=1.0) for i in range(8)]
    with pytest.raises(LabelsPending):
        collect(make_labeller(tmp_path, wait=False, structures_per_job=4), tasks)
    cluster.wait(lambda: len(read_trace(tmp_path / "trace")["end"]) >= 2, "nothing is calculated")
    (job,) = Ledger(tmp_path / "slurm").jobs.values()
    cluster.run("scancel", str(job.job_id))
    with pytest.raises(LabelsPending, match="cancelled"):
        collect(make_labeller(tmp_path, structures_per_job=4), tasks)
    assert set(list_ends(tmp_path)) == {"CANCELLED"}
    check_labels(collect(make_labeller(tmp_path), tasks), tasks)
    ends = read_trace(tmp_path / "trace")["end"]
    assert sorted(ends) == list(range(8))


def test_held_jobs_are_told_and_waited_for(
    cluster: Cluster, tmp_path: Path, said: list[str]
) -> None:
    task = make_task(0)
    labeller = make_labeller(tmp_path, sbatch={"hold": True}, wait=False)
    with pytest.raises(LabelsPending):
        collect(labeller, [task])
    (job,) = Ledger(tmp_path / "slurm").jobs.values()
    outcomes = make_labeller(tmp_path).label(deque([task]))
    release = subprocess.Popen(["sh", "-c", f"sleep 4; scontrol release {job.job_id}"])
    assert isinstance(next(outcomes), Label)
    assert not list(outcomes)
    release.wait()
    assert any("1 held" in line for line in said)


def test_out_of_memory_is_told_from_other_ends(cluster: Cluster, tmp_path: Path) -> None:
    """The structure that takes too much is found out; those beside it have their labels."""
    tasks = [make_task(i, **({"memory": 900} if i == 1 else {})) for i in range(4)]
    found = collect(make_labeller(tmp_path, retries=1, sbatch={"mem": "500M"}), tasks)
    failure = found[tasks[1].key]
    assert isinstance(failure, Failure)
    assert failure.reason == "out-of-memory"
    assert failure.n_tries == 2
    check_labels(found, [tasks[0], *tasks[2:]])
    assert read_trace(tmp_path / "trace")["begin"].count(1) == 2


@pytest.mark.slow
def test_walltime_costs_what_was_in_flight_and_more_time_is_given(
    cluster: Cluster, tmp_path: Path
) -> None:
    """SLURM's shortest limit is a minute."""
    tasks = [make_task(0), make_task(1, seconds=90.0), make_task(2)]
    options = {"time": "1m", "structures_per_job": 3}
    found = collect(make_labeller(tmp_path, **options), tasks)
    check_labels(found, tasks)
    trace = read_trace(tmp_path / "trace")
    assert (trace["begin"].count(0), trace["begin"].count(1)) == (1, 2)
    assert sorted(trace["end"]) == [0, 1, 2]
    jobs = Ledger(tmp_path / "slurm").jobs.values()
    assert "TIMEOUT" in list_ends(tmp_path)
    assert max(job.n_doublings for job in jobs) == 1


@pytest.mark.slow
def test_nothing_is_begun_that_would_not_end_in_time(cluster: Cluster, tmp_path: Path) -> None:
    tasks = [make_task(i, seconds=25.0) for i in range(4)]
    found = collect(make_labeller(tmp_path, time="1m", structures_per_job=4), tasks)
    check_labels(found, tasks)
    trace = read_trace(tmp_path / "trace")
    assert trace["begin"] == trace["end"] == [0, 1, 2, 3]
    assert "SHORT_OF_TIME" in list_ends(tmp_path)


def test_a_drained_node_and_a_restarted_controller_are_waited_for(
    cluster: Cluster, tmp_path: Path
) -> None:
    tasks = [make_task(i, seconds=0.5) for i in range(12)]
    cluster.run("scontrol", "update", "NodeName=localhost", "State=DRAIN", "Reason=test")
    outcomes = make_labeller(tmp_path, structures_per_job=3).label(deque(tasks))
    commands = (
        "sleep 4; scontrol update NodeName=localhost State=RESUME; sleep 4; "
        f"kill $(cat {cluster.folder}/slurmctld.pid); sleep 5; "
        f"PATH=$PATH:/usr/sbin slurmctld -f {cluster.conf}"
    )
    disturbance = subprocess.Popen(["sh", "-c", commands])
    found = {outcome.key: outcome for outcome in outcomes}
    disturbance.wait()
    check_labels(found, tasks)
    trace = read_trace(tmp_path / "trace")
    assert sorted(trace["begin"]) == sorted(trace["end"]) == list(range(12))


def test_silence_is_no_answer(cluster: Cluster, tmp_path: Path) -> None:
    """While the controller is away, nothing is submitted again, however long it takes."""
    tasks = [make_task(i, seconds=6.0) for i in range(2)]
    with pytest.raises(LabelsPending):
        collect(make_labeller(tmp_path, wait=False), tasks)
    cluster.wait(lambda: bool(read_trace(tmp_path / "trace")["begin"]), "nothing is calculated")
    cluster.stop_controller()
    starting = subprocess.Popen(
        ["sh", "-c", f"sleep 12; PATH=$PATH:/usr/sbin slurmctld -f {cluster.conf}"]
    )
    check_labels(collect(make_labeller(tmp_path), tasks), tasks)
    starting.wait()
    assert sorted(read_trace(tmp_path / "trace")["begin"]) == [0, 1]
    cluster.wait(lambda: "localhost" in cluster.run("sinfo", "-h", "-N"), "no controller")


def test_a_full_disk_on_the_shared_folder(
    cluster: Cluster, small_disk: Path, tmp_path: Path
) -> None:
    """The run stops with the reason; what was finished is kept, the rest is for the next."""
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    tasks = [make_task(i, seconds=0.3) for i in range(30)]
    options = {"store": str(small_disk / "store"), "structures_per_job": 15}
    outcomes = make_labeller(tmp_path, **options).label(deque(tasks))
    next(outcomes)
    _fill(small_disk / "junk")
    with pytest.raises(WriteError, match=r"what was finished is safe .*Make room and run again"):
        list(outcomes)
    cluster.wait(lambda: not cluster.list_jobs(), "jobs go on")
    assert len(read_trace(tmp_path / "trace")["end"]) < 30
    n_begun = len(read_trace(tmp_path / "trace")["begin"])
    _fill(small_disk / "more junk")  # in the place of the space that was kept
    with pytest.raises(WriteError):
        collect(make_labeller(tmp_path, **options), tasks)
    cluster.wait(lambda: not cluster.list_jobs(), "jobs go on")
    # Nothing is calculated that could not be kept.
    assert len(read_trace(tmp_path / "trace")["begin"]) == n_begun
    for junk in small_disk.glob("*junk"):
        junk.unlink()
    check_labels(collect(make_labeller(tmp_path, **options), tasks), tasks)
    trace = read_trace(tmp_path / "trace")
    assert sorted(trace["begin"]) == sorted(trace["end"]) == list(range(30))
    assert not list(small_disk.rglob(".spare*"))


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(512))
        except OSError:
            pass


SBATCH = """#!/bin/sh
# Slow before or behind the true command, as a busy controller is.
[ -e {flag} ] || {{ touch {flag}; slow=1; }}
[ "$slow" = 1 ] && sleep {before}
{sbatch} "$@"
code=$?
[ "$slow" = 1 ] && sleep {behind}
exit $code
"""


@pytest.mark.parametrize(("before", "behind"), [(0, 30), (6, 0), (30, 0)])
def test_killed_between_submission_and_record(
    before: int, behind: int, cluster: Cluster, tmp_path: Path, commands: Path
) -> None:
    """The queue is looked at for the name; a job that comes in late leaves at once."""
    script = commands / "sbatch"
    flag, sbatch = tmp_path / "flag", shutil.which("sbatch")
    script.write_text(SBATCH.format(flag=flag, sbatch=sbatch, before=before, behind=behind))
    script.chmod(0o755)
    pool = tmp_path / "pool.extxyz"
    write_structures(pool, [make_task(i).atoms for i in range(6)])
    command = label_command(pool)
    process = subprocess.Popen(command, cwd=ROOT)
    cluster.wait(flag.exists, "sbatch is not called")
    time.sleep(1.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    trace = read_trace(tmp_path / "trace")
    assert sorted(trace["begin"]) == sorted(trace["end"]) == list(range(6))
    if before == 30:  # it is still to come
        cluster.wait(lambda: bool(cluster.list_jobs()), "the late job does not come")
        cluster.wait(lambda: not cluster.list_jobs(), "the late job stays")
        assert read_trace(tmp_path / "trace") == trace


def label_command(pool: Path, *more: str) -> list[str]:
    folder = pool.parent
    settings = {
        "arguments.trace": folder / "trace",
        "poll_s": 1,
        "settle_s": 1,
        "max_jobs": 4,
        "time": "10m",
        "structures_per_job": 5,
    }
    words = [word for item in settings.items() for word in ("--set", f"{item[0]}={item[1]}")]
    out = folder / "labelled.extxyz"
    fixed = ["--slurm", "--calculator", TRACED, "--out", str(out), "--quiet"]
    return [sys.executable, "-m", "labelwise", "label", str(pool), *fixed, *words, *more]


def test_files_that_are_labelled_can_be_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    """What had come is kept, and what was under way is calculated by the next run."""
    pool = tmp_path / "pool.extxyz"
    slow = [make_task(i, seconds=60.0).atoms for i in (3, 4)]
    write_structures(pool, [*(make_task(i).atoms for i in range(3)), *slow])
    command, trace = label_command(pool), tmp_path / "trace"
    assert subprocess.run([*command, "--no-wait"], cwd=ROOT, check=False).returncode == 4
    cluster.wait(lambda: len(read_trace(trace)["begin"]) == 4, "nothing is calculated")
    subprocess.run([*command, "--cancel"], cwd=ROOT, check=True)
    cluster.wait(lambda: not cluster.list_jobs(), "the job goes on", limit_s=10.0)
    for atoms in slow:
        atoms.info["seconds"] = 0.0
    write_structures(pool, [*(make_task(i).atoms for i in range(3)), *slow])
    subprocess.run(command, cwd=ROOT, check=True)
    assert sorted(read_trace(trace)["end"]) == list(range(5))
    assert sorted(read_trace(trace)["begin"]) == [0, 1, 2, 3, 3, 4]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"pool.extxyz", "trace", "labelled.extxyz", "labelled.json", "labelled.labels"}


def kill_driver(cluster: Cluster, folder: Path, n_kills: int, n_structures: int) -> None:
    """Kill the driver at random moments of its life, again and again."""
    pool = folder / "pool.extxyz"
    write_structures(pool, [make_task(i, seconds=1.0).atoms for i in range(n_structures)])
    command = label_command(pool)
    rng = np.random.default_rng(5)
    n_killed = 0
    while n_killed < n_kills:
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            process.wait(timeout=rng.uniform(0.5, 6.0))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            n_killed += 1
            process.wait()
        else:
            raise AssertionError(f"all labels are there after {n_killed} kills")
    subprocess.run(command, cwd=ROOT, check=True)
    record = json.loads((folder / "labelled.json").read_text())
    assert record["counts"]["labelled"] == n_structures
    trace = read_trace(folder / "trace")
    assert sorted(trace["begin"]) == sorted(trace["end"]) == list(range(n_structures))


def test_the_driver_killed_at_random_moments(cluster: Cluster, tmp_path: Path) -> None:
    kill_driver(cluster, tmp_path, 6, 60)


@pytest.mark.slow
def test_the_driver_killed_at_fifty_moments(cluster: Cluster, tmp_path: Path) -> None:
    kill_driver(cluster, tmp_path, 50, 250)
