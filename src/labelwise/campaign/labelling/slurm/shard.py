"""One element of a job array: ``python -m labelwise.campaign.labelling.slurm.shard FOLDER N``.

It runs the calculator labeller on its structures; each label is in the store as soon as it is
known. No structure is begun when the time that is left is less than the longest one took.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labelwise.campaign.atomic_io import read_json, write_json
from labelwise.campaign.labelling.base import LabellingError, Task
from labelwise.campaign.labelling.calculator import CalculatorLabeller, CalculatorSettings
from labelwise.campaign.labelling.encoding import decode_structure
from labelwise.campaign.labelling.slurm.ledger import (
    DONE,
    ERROR,
    JOB,
    LEFT,
    NO_SPACE,
    REVOKED,
    SHORT_OF_TIME,
    begun_file,
    end_file,
    shard_file,
)
from labelwise.errors import WriteError
from labelwise.structures import Source

#: Seconds of the epoch when the job began, and when it will be ended; SLURM 23 sets the second.
BEGAN, ENDS = "LABELWISE_JOB_BEGAN", "SLURM_JOB_END_TIME"
EXIT_ERROR, EXIT_DISK = 70, 74


class _Announced(deque[Task]):
    """Structures; which of them was taken is written down first."""

    def __init__(self, tasks: Iterable[Task], record: Path) -> None:
        super().__init__(tasks)
        self._record = record

    def popleft(self) -> Task:
        task = super().popleft()
        with self._record.open("a") as stream:
            stream.write(f"{task.key}\n")
        return task


def run_shard(folder: Path, element: int) -> int:
    """Label the structures of an element and say how it ended.

    Returns:
        The exit code: 0, also where structures are left for want of time.

    Raises:
        DamagedStateError: The job's files cannot be read.
    """
    began = float(os.environ.get(BEGAN, time.time()))
    record = folder / begun_file(element)
    # First the trace, then the look: whoever revokes a job does it the other way round.
    record.touch()
    if (folder / REVOKED).exists():
        _say_end(folder, element, began, {"state": LEFT})
        return 0
    job = read_json(folder / JOB)
    settings = CalculatorSettings(**job["settings"])
    queue = _Announced(read_tasks(folder / shard_file(element)), record)
    labeller = CalculatorLabeller(
        settings, Path(job["directory"]), writer=f"{folder.name}-{element:03d}"
    )
    ends = _find_end(began, job["limit_minutes"])
    try:
        words, code = _label(labeller, queue, ends), 0
    except LabellingError as error:
        words, code = {"state": ERROR, "detail": str(error)}, EXIT_ERROR
    except WriteError as error:
        words, code = {"state": NO_SPACE, "detail": str(error)}, EXIT_DISK
    _say_end(folder, element, began, words)
    return code


def _say_end(folder: Path, element: int, began: float, words: dict[str, Any]) -> None:
    cost = {
        "seconds": round(time.time() - began, 3),
        "n_cpus": int(os.environ.get("SLURM_CPUS_ON_NODE", "1")),
    }
    write_json(folder / end_file(element), {**words, **cost})


def read_tasks(path: Path) -> list[Task]:
    """Return the structures of an element."""
    return [
        Task(each["key"], decode_structure(each["structure"]), Source(*each["source"]))
        for each in read_json(path)["tasks"]
    ]


def _label(labeller: CalculatorLabeller, queue: deque[Task], ends: float) -> dict[str, Any]:
    longest, n_left = 0.0, 0
    for outcome in labeller.label(queue):
        longest = max(longest, outcome.seconds)
        if ends - time.time() < longest:
            n_left += len(queue)
            queue.clear()
    return {"state": SHORT_OF_TIME if n_left else DONE, "detail": f"{n_left} left"}


def _find_end(began: float, limit_minutes: int | None) -> float:
    """Return when the job will be ended, seconds of the epoch."""
    if ENDS in os.environ:
        return float(os.environ[ENDS])
    return float("inf") if limit_minutes is None else began + 60.0 * limit_minutes


if __name__ == "__main__":
    sys.exit(run_shard(Path(sys.argv[1]), int(sys.argv[2])))
