"""SLURM's commands: one question for all jobs, and seldom; silence is no answer."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelwise.campaign.labelling.base import LabellingError
from labelwise.errors import LabelwiseError

_log = logging.getLogger(__name__)

#: States of ``squeue`` of a job that will not go on. A requeued one is pending again.
ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
#: States of a job that was put back into the queue and has to be released.
_HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT")
_COMMAND_LIMIT_S = 120.0
_LONGEST_BACKOFF = 10.0
_FORMAT = "%j|%F|%K|%T|%r|%M|%C"
_INTERRUPTED = re.compile(r"timed? ?out|unable to contact|connection|communication", re.IGNORECASE)


class SubmissionError(LabelwiseError, RuntimeError):
    """``sbatch`` did not say that it submitted; the job may be in the queue nevertheless.

    Args:
        message: What it said.
        is_refusal: Whether the controller answered, and refused.
    """

    def __init__(self, message: str, *, is_refusal: bool) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


@dataclass(frozen=True)
class Entry:
    """An element of a job array as ``squeue`` shows it.

    Attributes:
        job_id: Number of the array.
        state: ``PENDING``, ``RUNNING``, ``COMPLETED``, ...
        reason: Why it waits or ended; ``JobHeldUser``, ``Resources``, ...
        seconds: Wall time used.
        n_cpus: Cores.
    """

    job_id: str
    state: str
    reason: str
    seconds: float
    n_cpus: int

    @property
    def is_held(self) -> bool:
        """Whether it waits for somebody to release it."""
        is_held = self.state == "PENDING" and "held" in self.reason.lower()
        return is_held or self.state in _HELD


@dataclass(frozen=True)
class Snapshot:
    """What SLURM knew at one moment of the jobs that were asked for: all of it.

    Attributes:
        asked: When the question was put, seconds of the epoch.
        jobs: Job name to element to entry.
    """

    asked: float
    jobs: Mapping[str, Mapping[int, Entry]]


def summarise(snapshot: Snapshot, names: Collection[str]) -> dict[str, Any]:
    """Return what a snapshot says of jobs in numbers, as plain data.

    Args:
        snapshot: What SLURM knew.
        names: The jobs that are of interest.
    """
    entries = [
        entry
        for name, elements in snapshot.jobs.items()
        for entry in elements.values()
        if name in names
    ]
    living = [entry for entry in entries if entry.state not in ENDED]
    return {
        "asked": round(snapshot.asked, 3),
        "states": dict(Counter(entry.state for entry in entries)),
        "reasons": dict(Counter(entry.reason for entry in entries if entry.state == "PENDING")),
        "n_held": sum(entry.is_held for entry in entries),
        "core_hours": round(sum(each.seconds * each.n_cpus for each in living) / 3600.0, 4),
    }


class Slurm:
    """The controller, which is asked seldom.

    Args:
        poll_s: Least seconds between two questions, and between two submissions. After a
            question without an answer it is longer and longer, up to ten times.
    """

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s
        self._backoff = 1.0
        self._next_question = 0.0
        self._next_submission = 0.0

    @staticmethod
    def require() -> None:
        """Raise ``LabellingError`` unless SLURM's commands are there."""
        missing = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            raise LabellingError(
                f"labels from SLURM need the command {missing[0]!r}, which is not on PATH: run "
                "this on a machine that submits jobs, a login node say"
            )

    @property
    def may_submit(self) -> bool:
        """Whether the last submission is long enough ago."""
        return time.monotonic() >= self._next_submission

    def ask(self, names: Collection[str]) -> Snapshot | None:
        """Return what SLURM knows of jobs by these names, ended ones too as long as it does.

        Returns:
            Everything it knows; None if it is not asked again yet, or does not answer.
        """
        if time.monotonic() < self._next_question or not names:
            return None
        asked = time.time()
        done = _call(
            ["squeue", "--noheader", "--array", "--states=all", f"--name={','.join(names)}",
             f"--format={_FORMAT}"]
        )  # fmt: skip
        found = None if done is None or done.returncode else _parse(done.stdout)
        if found is None:
            said = "no answer" if done is None else done.stderr.strip()
            _log.info("SLURM does not say how jobs are (%s); asking again later", said[:200])
            self._backoff = min(2.0 * self._backoff, _LONGEST_BACKOFF)
        else:
            self._backoff = 1.0
        self._next_question = time.monotonic() + self._poll_s * self._backoff
        return None if found is None else Snapshot(asked, found)

    def submit(self, script: Path, options: Sequence[str]) -> str:
        """Submit a script and return the job's number.

        Raises:
            SubmissionError: It is not known to be submitted.
        """
        self._next_submission = time.monotonic() + self._poll_s
        done = _call(["sbatch", "--parsable", *options, str(script)])
        if done is None:
            said = f"sbatch took over {_COMMAND_LIMIT_S:g} s, or could not be run"
            raise SubmissionError(said, is_refusal=False)
        number = done.stdout.strip().partition(";")[0]
        if done.returncode or not number.isdigit():
            self._next_submission += (_LONGEST_BACKOFF - 1.0) * self._poll_s
            said = " ".join((done.stderr or done.stdout).split())[:500]
            raise SubmissionError(
                f"sbatch: {said or f'exit code {done.returncode}'}",
                is_refusal=bool(said) and not _INTERRUPTED.search(said),
            )
        return number

    def cancel(self, elements: Sequence[str]) -> bool:
        """Cancel elements, ``1234_7`` each; what has ended already is passed over.

        Returns:
            Whether SLURM took it.
        """
        done = _call(["scancel", "--quiet", *elements]) if elements else None
        return not elements or (done is not None and done.returncode == 0)


def _call(words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """Run a command; None if it does not end, or cannot be begun just now.

    What users have set for their own looks at the queue, ``SQUEUE_PARTITION`` say, would hide jobs.

    Raises:
        LabellingError: There is no such command.
    """
    try:
        return subprocess.run(  # noqa: S603 - SLURM's commands with our own words
            words,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_LIMIT_S,
            stdin=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SCANCEL_"))},
        )
    except subprocess.TimeoutExpired:
        return None
    except BlockingIOError:  # a login node that has no process left for us
        return None
    except OSError as error:
        raise LabellingError(f"cannot run {words[0]!r}: {error.strerror or error}") from error


def _parse(text: str) -> dict[str, dict[int, Entry]] | None:
    """Read what ``squeue`` printed; None if it is not what was asked for."""
    found: dict[str, dict[int, Entry]] = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) != _FORMAT.count("|") + 1:
            return None
        name, number, element, state, reason, used, n_cpus = parts
        if not element.isdigit():  # somebody else's job by the same name is no array
            continue
        entry = Entry(number, state, reason, _seconds(used), int(n_cpus or 0))
        found.setdefault(name, {})[int(element)] = entry
    return found


def _seconds(used: str) -> float:
    """Return the seconds of ``D-HH:MM:SS``, ``HH:MM:SS`` or ``MM:SS``; 0 for no such time."""
    days, _, clock = used.rpartition("-")
    try:
        seconds = 0.0
        for part in clock.split(":"):
            seconds = 60.0 * seconds + float(part)
        return seconds + 86400.0 * float(days or 0)
    except ValueError:
        return 0.0
