"""How the jobs of a round are, for those who look at a campaign from outside."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelwise.campaign.labelling.slurm.labeller import JOBS_FOLDER
from labelwise.campaign.labelling.slurm.ledger import JOBS, Ledger, shard_file
from labelwise.campaign.labelling.slurm.queue import Slurm, summarise
from labelwise.campaign.labelling.slurm.settings import SlurmSettings
from labelwise.campaign.labelling.slurm.shard import read_tasks
from labelwise.campaign.labelling.store import LabelStore


@dataclass(frozen=True)
class QueueStatus:
    """The jobs of a round.

    Attributes:
        n_structures: Structures that were submitted.
        n_labelled: Those of them whose label has come.
        n_failed: Those of them of which a failure was found.
        elements: Elements of job arrays by state: SLURM's of those that were seen in the queue,
            their own of those that have ended.
        reasons: Why elements wait, by SLURM's reason.
        core_hours: Spent so far.
        core_hours_left: Estimate of what is left, by the mean time of the labels that are known;
            None where none is.
        asked: When SLURM was last asked, seconds of the epoch; None if it never was.
    """

    n_structures: int
    n_labelled: int
    n_failed: int
    elements: dict[str, int]
    reasons: dict[str, int]
    core_hours: float
    core_hours_left: float | None
    asked: float | None

    @property
    def n_open(self) -> int:
        """Structures without an outcome."""
        return self.n_structures - self.n_labelled - self.n_failed

    def describe(self) -> str:
        """Return all of it in a line."""
        states = ", ".join(f"{n} {state.lower()}" for state, n in sorted(self.elements.items()))
        reasons = ", ".join(sorted(self.reasons))
        parts = [
            f"{states or 'none'}" + (f" (waiting for {reasons})" if reasons else ""),
            f"{self.n_labelled} of {self.n_structures} labels have come",
            f"{self.core_hours:.2f} core-hours spent",
        ]
        parts += [f"{self.n_failed} failed"] if self.n_failed else []
        if self.core_hours_left is not None and self.n_open:
            parts.append(f"about {self.core_hours_left:.2f} left")
        if self.asked is not None:
            parts.append(f"SLURM asked {max(0.0, time.time() - self.asked):.0f} s ago")
        return "; ".join(parts)


def read_queue_status(
    folder: Path, settings: SlurmSettings, directory: Path, *, ask: bool
) -> QueueStatus | None:
    """Return how the jobs of a round are; None if it has none. Nothing is changed.

    Args:
        folder: The round's.
        settings: Of the labeller.
        directory: The campaign's, where a relative store begins.
        ask: Whether SLURM may be asked, if nobody did in the last ``poll_s`` seconds.

    Raises:
        DamagedStateError: A file of the jobs or of the store cannot be read.
    """
    home = folder / JOBS_FOLDER
    if not (home / JOBS).exists():
        return None
    ledger = Ledger(home)
    said = ledger.read_queue()
    is_old = time.time() - said.get("asked", 0.0) >= settings.poll_s
    if ask and is_old and ledger.active_names and shutil.which("squeue"):
        snapshot = Slurm(settings.poll_s).ask(ledger.active_names)
        if snapshot is not None:
            said = summarise(snapshot, set(ledger.active_names))
            ledger.try_to_write_queue(said)
    counts = _count_outcomes(ledger, LabelStore(directory / settings.store, settings), settings)
    ends = [end for job in ledger.jobs.values() for end in job.ends.values()]
    is_active = bool(ledger.active_names)
    states = Counter(str(end["state"]) for end in ends)
    states.update(said.get("states", {}) if is_active else {})
    spent = sum(end["seconds"] * end["n_cpus"] for end in ends) / 3600.0
    running = float(said.get("core_hours", 0.0)) if is_active else 0.0
    return QueueStatus(
        **counts,
        elements=dict(states),
        reasons=dict(said.get("reasons", {})) if is_active else {},
        core_hours=spent + running,
        asked=said.get("asked"),
    )


def _count_outcomes(ledger: Ledger, store: LabelStore, settings: SlurmSettings) -> dict[str, Any]:
    store.refresh()
    labelled: dict[str, bool] = {}
    failed: dict[str, bool] = {}
    for job in ledger.jobs.values():
        paths = [job.folder / shard_file(element) for element in range(len(job.shards))]
        for path in [] if job.is_revoked else [path for path in paths if path.exists()]:
            for task in read_tasks(path):
                labelled[task.key] = store.find_label(task.atoms, task.key) is not None
                failure = store.find_failure(task.atoms, task.key, writers=ledger.prefix)
                failed[task.key] = failure is not None
    n_labelled, n_failed = sum(labelled.values()), sum(failed.values())
    n_open = len(labelled) - n_labelled - n_failed
    mean = store.mean_seconds
    left = None if mean is None else n_open * mean * settings.n_threads / 3600.0
    return {
        "n_structures": len(labelled),
        "n_labelled": n_labelled,
        "n_failed": n_failed,
        "core_hours_left": left,
    }
