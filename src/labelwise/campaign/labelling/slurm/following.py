"""What became of jobs: by their own account, else by SLURM's, never by silence."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from labelwise.campaign.labelling.base import LabellingError, Task
from labelwise.campaign.labelling.slurm.ledger import (
    DONE,
    ERROR,
    LEFT,
    NO_SPACE,
    REVOKED,
    SHORT_OF_TIME,
    Job,
    Ledger,
)
from labelwise.campaign.labelling.slurm.queue import ENDED, Entry, Slurm, Snapshot, summarise
from labelwise.campaign.labelling.slurm.settings import SlurmSettings
from labelwise.campaign.labelling.store import LabelStore
from labelwise.errors import WriteError
from labelwise.runtime.files import sync_folder, write_text

_log = logging.getLogger(__name__)

#: A job that SLURM does not know (any more) and that has not said how it ended.
FORGOTTEN = "FORGOTTEN"
_LOOK_S = 0.2
_PATIENCE_S = 10.0
#: Ends for which no structure is to blame.
_BLAMELESS = frozenset({"CANCELLED", LEFT})


#: What SLURM's step daemon writes into the output of a job that it ends.
_STEP_DAEMON = "slurmstepd"
_SAYS = {
    "TIMEOUT": re.compile("DUE TO TIME LIMIT"),
    "PREEMPTED": re.compile("DUE TO PREEMPTION"),
    "NODE_FAIL": re.compile("DUE TO NODE FAILURE"),
    "OUT_OF_MEMORY": re.compile("memory limit|oom.kill|out of memory", re.IGNORECASE),
    "CANCELLED": re.compile("CANCELLED AT"),
}


def tell_apart(state: str, lines: Sequence[str]) -> str:
    """Return how a job ended where its state says too little: what SLURM wrote in its output.

    Some set-ups call a job that was killed for memory failed, and a controller forgets jobs that
    ended some minutes ago.

    Args:
        state: As ``squeue`` has it, or ``FORGOTTEN``.
        lines: The last ones of the output.
    """
    if state not in (FORGOTTEN, "FAILED", "COMPLETED"):
        return state
    said = " ".join(line for line in lines if _STEP_DAEMON in line)
    return next((name for name, pattern in _SAYS.items() if pattern.search(said)), state)


class Follower:
    """Follows jobs from their submission to their end.

    Args:
        settings: Of the labeller.
        ledger: The jobs.
        slurm: The controller.
        store: Where labels come.

    Attributes:
        cancelled: Structures whose jobs somebody cancelled; this run does not submit them again.
    """

    def __init__(
        self, settings: SlurmSettings, ledger: Ledger, slurm: Slurm, store: LabelStore
    ) -> None:
        self._settings, self._ledger, self._slurm, self._store = settings, ledger, slurm, store
        self.cancelled: set[str] = set()
        self._gone: dict[tuple[str, int], tuple[float, str, Entry | None]] = {}
        self._said = ""

    def look(self, tasks: Mapping[str, Task]) -> bool:
        """Find out what has ended.

        Args:
            tasks: Structures whose outcome is still wanted, by key.

        Returns:
            Whether anything has.

        Raises:
            LabellingError: An element says that the calculator cannot be made.
            WriteError: An element says that the store is full.
        """
        found = [self._hear(job, element, tasks) for job, element in list(self._ledger.active)]
        snapshot = self._slurm.ask(self._ledger.active_names)
        if snapshot is not None:
            self._tell(snapshot)
            found += [self._find_lost(job, snapshot) for job in self._ledger.lost]
            for job, element in list(self._ledger.active):
                self._compare(job, element, snapshot)
        found += [self._conclude_gone(place, tasks) for place in list(self._gone)]
        return any(found)

    @property
    def is_settling(self) -> bool:
        """Whether elements have ended whose files may still appear."""
        return bool(self._gone)

    def dismiss(self, *, patient: bool) -> bool:
        """Cancel the elements whose end is not known and jobs that came into the queue late.

        Args:
            patient: Give those that are about to end a moment to do it.

        Returns:
            Whether none goes on.
        """
        ends = time.monotonic() + (min(self._settings.settle_s, _PATIENCE_S) if patient else 0.0)
        self._note_said()
        while self._ledger.active_names and time.monotonic() < ends:
            time.sleep(_LOOK_S)
            self._note_said()
        for job in self._ledger.lost:
            _revoke(job)
        revoked = [job.name for job in self._ledger.jobs.values() if job.is_revoked]
        names = [*self._ledger.active_names, *revoked]
        if not names:
            return True
        snapshot = self._ask_patiently(names)
        if snapshot is None:
            return False
        living = [
            (job, element, entry)
            for job in self._ledger.jobs.values()
            for element, entry in snapshot.jobs.get(job.name, {}).items()
            if job.name in names and entry.state not in ENDED
        ]
        if not self._slurm.cancel([f"{each.job_id}_{number}" for _, number, each in living]):
            _log.info("SLURM did not take the cancelling of jobs: the next run attaches to them")
            return False
        if living:
            _log.info("%d parts of jobs are cancelled", len(living))
        for job, element in list(self._ledger.active):
            entry = snapshot.jobs.get(job.name, {}).get(element)
            self._note(job, element, "WITHDRAWN", entry, {})
        return True

    def _note_said(self) -> None:
        """Note the ends of which elements have said anything, whatever it is."""
        for job, element in list(self._ledger.active):
            end = job.read_end(element)
            if end is not None:
                self._note_end(job, element, end, {})

    def _ask_patiently(self, names: Collection[str]) -> Snapshot | None:
        """Ask until SLURM may be asked again and answers; a few times."""
        ends = time.monotonic() + 3.0 * self._settings.poll_s
        while time.monotonic() < ends:
            snapshot = self._slurm.ask(names)
            if snapshot is not None:
                return snapshot
            time.sleep(_LOOK_S)
        return None

    def _hear(self, job: Job, element: int, tasks: Mapping[str, Task]) -> bool:
        """Take an element's own account of its end, if there is one and its labels are here."""
        end = job.read_end(element)
        if end is None:
            return False
        self._store.refresh()
        left = self._list_left(job, element, tasks)
        place = (job.name, element)
        if end["state"] == SHORT_OF_TIME:  # what was begun has its outcome, the rest has none
            left &= job.read_begun(element)
        if end["state"] in (DONE, SHORT_OF_TIME) and left:  # files are shown in any order
            since = self._gone.setdefault(place, (time.monotonic(), FORGOTTEN, None))[0]
            if time.monotonic() - since < self._settings.settle_s:
                return False
            self._note_end(job, element, end, self._blame(job, element, left, FORGOTTEN))
            return True
        self._gone.pop(place, None)
        self._note_end(job, element, end, {})
        if end["state"] == ERROR:
            raise LabellingError(f"{end['detail']} (on a node, job {job.job_id})")
        if end["state"] == NO_SPACE:
            raise WriteError(
                f"{end['detail']} (on a node, job {job.job_id}). Make room and run again; jobs "
                "that still run are left to it"
            )
        return True

    def _compare(self, job: Job, element: int, snapshot: Snapshot) -> None:
        """Look up an element in what SLURM knows."""
        place = (job.name, element)
        if job.job_id is None or snapshot.asked < job.known_since:
            return
        entry = snapshot.jobs.get(job.name, {}).get(element)
        if entry is not None and entry.state not in ENDED:
            self._gone.pop(place, None)
        else:
            state = FORGOTTEN if entry is None else entry.state
            since = self._gone.get(place, (time.monotonic(), "", None))[0]
            self._gone[place] = (since, state, entry)

    def _conclude_gone(self, place: tuple[str, int], tasks: Mapping[str, Task]) -> bool:
        """Note the end of an element that has not said it, when its files had time to appear."""
        since, state, entry = self._gone[place]
        job, element = self._ledger.jobs[place[0]], place[1]
        if element not in job.open_elements:
            del self._gone[place]
            return False
        if time.monotonic() - since < self._settings.settle_s or job.read_end(element) is not None:
            return False
        del self._gone[place]
        state = tell_apart(state, job.read_last_lines(element))
        self._store.refresh()
        left = self._list_left(job, element, tasks)
        blamed: dict[str, str] = {}
        if state == "CANCELLED":
            self.cancelled |= left
        elif state not in _BLAMELESS:
            blamed = self._blame(job, element, left, state)
        self._note(job, element, state, entry, blamed)
        _log.info(
            "job %s_%d ended (%s) before %d structures were labelled",
            job.job_id or job.name,
            element,
            state.lower(),
            len(left),
        )
        return True

    def _find_lost(self, job: Job, snapshot: Snapshot) -> bool:
        """Find out whether a job was submitted of which that is not known."""
        if snapshot.asked < job.known_since:
            return False
        entries = snapshot.jobs.get(job.name, {})
        if entries:
            self._ledger.note_submitted(job, next(iter(entries.values())).job_id)
            return True
        # First the mark, then the look for traces: whoever starts does it the other way round.
        # A job that comes into the queue from now on leaves at once.
        _revoke(job)
        if any(job.folder.glob("element_*.begun")):
            self._ledger.note_submitted(job, "")
        else:
            self._ledger.note_revoked(job, "the queue does not know it")
        return True

    def _list_left(self, job: Job, element: int, tasks: Mapping[str, Task]) -> set[str]:
        """Return the structures of an element that are wanted and have no outcome."""
        return {
            key
            for key in job.shards[element]
            if key in tasks and not self._has_outcome(tasks[key], f"{job.name}-{element:03d}")
        }

    def _has_outcome(self, task: Task, writer: str) -> bool:
        if self._store.find_label(task.atoms, task.key) is not None:
            return True
        return self._store.find_failure(task.atoms, task.key, writers=writer) is not None

    def _blame(self, job: Job, element: int, left: set[str], state: str) -> dict[str, str]:
        """Return the structures that an element was at; all of its own if it began none."""
        begun = job.read_begun(element)
        number = f"{job.job_id or job.name}_{element}"
        last = job.read_last_lines(element)[-1:] or ["nothing"]
        said = f"job {number}: {state.lower()}; it said last: {last[0][:200]}"
        return dict.fromkeys(sorted(left & begun if begun else left), said)

    def _note(
        self, job: Job, element: int, state: str, entry: Entry | None, blamed: Mapping[str, str]
    ) -> None:
        seconds, n_cpus = (0.0, 0) if entry is None else (entry.seconds, entry.n_cpus)
        words = {"state": state, "seconds": seconds, "n_cpus": n_cpus}
        self._ledger.note_end(job, element, words, blamed)

    def _note_end(
        self, job: Job, element: int, end: Mapping[str, Any], blamed: Mapping[str, str]
    ) -> None:
        words = {name: end[name] for name in ("state", "seconds", "n_cpus")}
        self._ledger.note_end(job, element, words, blamed)

    def _tell(self, snapshot: Snapshot) -> None:
        """Keep how the jobs are for those who ask, and tell it if it has changed."""
        told = summarise(snapshot, set(self._ledger.active_names))
        self._ledger.write_queue(told)
        said = ", ".join(f"{n} {state.lower()}" for state, n in sorted(told["states"].items()))
        held = told["n_held"]
        said += f"; {held} held: release them with scontrol release" if held else ""
        if said and said != self._said:
            _log.info("jobs: %s", said)
        self._said = said


def _revoke(job: Job) -> None:
    """Let whatever starts by the name of a job leave at once."""
    write_text(job.folder / REVOKED, "")
    sync_folder(job.folder)
