"""Which jobs there are and what became of them, so that a crash at any moment loses none.

::

    ROUND/slurm/
      jobs.jsonl              a line for each thing that happened, in order
      queue.json              how the jobs were when SLURM was last asked
      lw-1f0c93ab-0001/       a job array; its name was written down before it was submitted
        job.json, job.sh      what every element runs
        shard_000.json        the structures of an element
        element_000.begun     which of them were begun, a line each
        element_000.end.json  how it ended, by its own account; none if it was killed
        output_000.log        what it printed
        revoked               there: whoever starts by this name has to leave at once
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labelwise.campaign.atomic_io import (
    append_line,
    read_json,
    read_log,
    repair_log,
    write_json,
)
from labelwise.errors import WriteError

JOBS = "jobs.jsonl"
QUEUE = "queue.json"
JOB = "job.json"
SCRIPT = "job.sh"
REVOKED = "revoked"
#: How an element ended by its own account: the structures have an outcome; there was no time for
#: all of them; the calculator cannot be made; the disk is full; its job was revoked.
DONE, SHORT_OF_TIME, ERROR = "DONE", "SHORT_OF_TIME", "ERROR"
NO_SPACE, LEFT = "NO_SPACE", "REVOKED"
_N_LINES = 20


def shard_file(element: int) -> str:
    """Return the name of the file of an element's structures."""
    return f"shard_{element:03d}.json"


def begun_file(element: int) -> str:
    """Return the name of the file in which an element says what it has begun."""
    return f"element_{element:03d}.begun"


def end_file(element: int) -> str:
    """Return the name of the file in which an element says how it ended."""
    return f"element_{element:03d}.end.json"


def output_file(element: int | str) -> str:
    """Return the name of the file of what an element prints."""
    return f"output_{element:03d}.log" if isinstance(element, int) else f"output_{element}.log"


@dataclass(frozen=True)
class Blame:
    """A job that ended while it was at a structure.

    Attributes:
        state: How it ended, in SLURM's words.
        detail: The same with where and what it printed last.
        seconds: Wall time of the job.
    """

    state: str
    detail: str
    seconds: float


@dataclass
class Job:
    """A job array.

    Attributes:
        name: A name that no other job has.
        folder: Its files.
        shards: Keys of the structures of each element.
        n_doublings: How often its time limit was doubled.
        known_since: When it was planned, found or submitted, seconds of the epoch.
        job_id: SLURM's number; None until it is known to be submitted.
        is_revoked: Whether it never reached the queue.
        ends: What is known of the elements that have ended.
    """

    name: str
    folder: Path
    shards: list[list[str]]
    n_doublings: int
    known_since: float
    job_id: str | None = None
    is_revoked: bool = False
    ends: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def open_elements(self) -> list[int]:
        """Elements of which the end is not known."""
        if self.is_revoked:
            return []
        return [number for number in range(len(self.shards)) if number not in self.ends]

    def read_begun(self, element: int) -> set[str]:
        """Return the structures that an element has begun."""
        path = self.folder / begun_file(element)
        return set(path.read_text().split()) if path.exists() else set()

    def read_end(self, element: int) -> dict[str, Any] | None:
        """Return how an element ended by its own account; None if it has not said."""
        path = self.folder / end_file(element)
        return read_json(path) if path.exists() else None

    def read_last_lines(self, element: int) -> list[str]:
        """Return the last lines that an element, or SLURM of it, printed."""
        path = self.folder / output_file(element)
        try:
            lines = path.read_text(errors="replace").strip().splitlines()
        except OSError:
            return []
        return lines[-_N_LINES:]


class Ledger:
    """The jobs of one round, or of one file to be labelled.

    Args:
        folder: Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = ""
        self.jobs: dict[str, Job] = {}
        self.blames: dict[str, list[Blame]] = {}
        self.n_told: dict[str, int] = {}
        for event in read_log(folder / JOBS):
            self._take(event)

    def begin(self) -> None:
        """Make the ledger ready to be written to; only who has the campaign may.

        Raises:
            WriteError: It cannot be.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(f"cannot make {self.folder}: {error.strerror or error}") from error
        repair_log(self.folder / JOBS)
        if not self.prefix:
            self._note({"event": "begun", "prefix": f"lw-{secrets.token_hex(4)}-"})

    @property
    def active(self) -> Iterator[tuple[Job, int]]:
        """Elements of which the end is not known."""
        for job in self.jobs.values():
            for element in job.open_elements:
                yield job, element

    @property
    def active_names(self) -> list[str]:
        """Names of the jobs with such elements."""
        return [job.name for job in self.jobs.values() if job.open_elements]

    @property
    def lost(self) -> list[Job]:
        """Jobs of which it is not known whether they were submitted."""
        return [job for job in self.jobs.values() if job.open_elements and job.job_id is None]

    def plan(self, shards: Sequence[Sequence[str]], n_doublings: int) -> Job:
        """Write down a job that is about to be prepared and submitted."""
        name = f"{self.prefix}{len(self.jobs) + 1:04d}"
        words = {"shards": [list(keys) for keys in shards], "n_doublings": n_doublings}
        self._note({"event": "planned", "name": name, **words})
        return self.jobs[name]

    def note_submitted(self, job: Job, job_id: str) -> None:
        """Write down that a job is in the queue, or was; by which number, if that is known."""
        self._note({"event": "submitted", "name": job.name, "job_id": job_id})

    def note_revoked(self, job: Job, reason: str) -> None:
        """Write down that a job never reached the queue."""
        self._note({"event": "revoked", "name": job.name, "reason": reason})

    def note_end(
        self, job: Job, element: int, words: Mapping[str, Any], blamed: Mapping[str, str]
    ) -> None:
        """Write down how an element ended.

        Args:
            job: The job.
            element: Which of its elements.
            words: ``state`` in SLURM's words or the element's own, ``seconds``, ``n_cpus``.
            blamed: Structures that it was at, and what there is to say.
        """
        event = {"event": "ended", "name": job.name, "element": element, **words}
        self._note({**event, "blamed": dict(blamed)})

    def note_told(self, key: str, n_known: int) -> None:
        """Write down that a failure was handed on, so that the structure may be asked for anew.

        Args:
            key: The structure.
            n_known: Failures of it that our jobs have found so far.
        """
        self._note({"event": "told", "key": key, "n_known": n_known})

    def write_queue(self, content: Mapping[str, Any]) -> None:
        """Keep how the jobs are, for those who ask how a campaign is."""
        write_json(self.folder / QUEUE, content)

    def try_to_write_queue(self, content: Mapping[str, Any]) -> None:
        """Do the same where only reading may be allowed."""
        with suppress(WriteError):
            self.write_queue(content)

    def read_queue(self) -> dict[str, Any]:
        """Return what ``write_queue`` kept; nothing before SLURM was asked."""
        path = self.folder / QUEUE
        return read_json(path) if path.exists() else {}

    def count_doublings(self, key: str) -> int:
        """Return how often time was the reason that a structure has no label."""
        return sum(each.state == "TIMEOUT" for each in self.blames.get(key, ()))

    def _note(self, event: dict[str, Any]) -> None:
        event = {"time": round(time.time(), 3), **event}
        append_line(self.folder / JOBS, event)
        self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "begun":
            self.prefix = event["prefix"]
        elif kind == "told":
            self.n_told[event["key"]] = event["n_known"]
            self.blames.pop(event["key"], None)
        elif kind == "planned":
            words = (event["shards"], event["n_doublings"], event["time"])
            name = event["name"]
            self.jobs[name] = Job(name, self.folder / name, *words)
        else:
            self._change(self.jobs[event["name"]], event)

    def _change(self, job: Job, event: dict[str, Any]) -> None:
        if event["event"] == "submitted":
            job.job_id, job.known_since = event["job_id"], event["time"]
        elif event["event"] == "revoked":
            job.is_revoked = True
        else:
            job.ends[event["element"]] = event
            for key, detail in event["blamed"].items():
                blame = Blame(event["state"], detail, event["seconds"])
                self.blames.setdefault(key, []).append(blame)
