"""The files of a job array, and the words that submit it."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from labelwise.campaign.atomic_io import write_json
from labelwise.campaign.labelling.base import Task
from labelwise.campaign.labelling.encoding import encode_structure
from labelwise.campaign.labelling.slurm.ledger import (
    JOB,
    SCRIPT,
    Job,
    output_file,
    shard_file,
)
from labelwise.campaign.labelling.slurm.settings import SlurmSettings
from labelwise.campaign.labelling.slurm.shard import BEGAN
from labelwise.runtime.files import write_text

#: Part of a job's time that its structures are expected to take.
_FILLED = 0.5


def choose_size(
    settings: SlurmSettings, n_structures: int, n_free: int, mean_seconds: float | None
) -> int:
    """Return how many structures an element gets.

    With ``auto``, so many that all structures fit into the elements that may be submitted, that
    every worker has one, and that they are expected to take half of the time limit at most.

    Args:
        settings: Of the labeller.
        n_structures: Structures to be shared out, > 0.
        n_free: Elements that may be submitted, > 0.
        mean_seconds: What a calculation has taken so far; None where nothing is known.
    """
    if isinstance(settings.structures_per_job, int):
        return settings.structures_per_job
    size = max(settings.workers_per_job, math.ceil(n_structures / n_free))
    minutes = settings.limit_minutes()
    if minutes is not None and mean_seconds is not None and mean_seconds > 0:
        fitting = _FILLED * 60.0 * minutes * settings.workers_per_job / mean_seconds
        size = min(size, max(settings.workers_per_job, int(fitting)))
    return size


def write_job(
    job: Job, settings: SlurmSettings, tasks: Mapping[str, Task], directory: Path, store: Path
) -> Path:
    """Write what the elements of a job run.

    Args:
        job: The job.
        settings: Of the labeller.
        tasks: Its structures, by key.
        directory: Where modules are searched first and calculations are made.
        store: The store's folder.

    Returns:
        The script to submit.

    Raises:
        WriteError: The disk is full, or the folder cannot be written to.
    """
    calculation = settings.on_node(str(store.absolute())).model_dump(mode="json")
    content = {
        "settings": calculation,
        "directory": str(directory.absolute()),
        "limit_minutes": settings.limit_minutes(job.n_doublings),
    }
    for element, keys in enumerate(job.shards):
        encoded = [_encode(tasks[key]) for key in keys]
        write_json(job.folder / shard_file(element), {"tasks": encoded})
    write_json(job.folder / JOB, content)
    words = [sys.executable, "-m", "labelwise.campaign.labelling.slurm.shard"]
    lines = [
        "#!/bin/bash",
        f"export {BEGAN}=$(date +%s)",
        *settings.setup,
        f'exec {shlex.join([*words, str(job.folder.absolute())])} "$SLURM_ARRAY_TASK_ID"',
    ]
    write_text(job.folder / SCRIPT, "\n".join(lines) + "\n")
    return job.folder / SCRIPT


def list_options(job: Job, settings: SlurmSettings) -> list[str]:
    """Return the options with which a job is submitted; those of the user come last."""
    options = [
        f"--job-name={job.name}",
        f"--array=0-{len(job.shards) - 1}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={settings.n_cores}",
        f"--output={job.folder.absolute() / output_file('%3a')}",
    ]
    minutes = settings.limit_minutes(job.n_doublings)
    options += [] if minutes is None else [f"--time={minutes}"]
    options += [] if settings.partition is None else [f"--partition={settings.partition}"]
    return options + list_user_options(settings.sbatch)


def list_user_options(given: Mapping[str, str | int | bool]) -> list[str]:
    """Return options of ``sbatch`` as words; what is true has no value, what is false is none."""
    words = []
    for name, value in given.items():
        if value is not False:
            flag = f"--{name.lstrip('-').replace('_', '-')}"
            words.append(flag if value is True else f"{flag}={value}")
    return words


def share_out(keys: Sequence[str], size: int) -> list[list[str]]:
    """Return keys in shards of a size; the last may be smaller."""
    return [list(keys[start : start + size]) for start in range(0, len(keys), size)]


def _encode(task: Task) -> dict[str, object]:
    source = [task.source.file, task.source.frame]
    return {"key": task.key, "source": source, "structure": encode_structure(task.atoms)}
