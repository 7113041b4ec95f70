"""Labels from a SLURM queue: what to submit, what to wait for, what to submit again."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from labelwise.campaign.labelling.base import (
    Failure,
    LabellingError,
    LabelsPending,
    Outcome,
    Task,
    register_labeller,
)
from labelwise.campaign.labelling.slurm.following import Follower
from labelwise.campaign.labelling.slurm.ledger import JOBS, Ledger
from labelwise.campaign.labelling.slurm.queue import Slurm, SubmissionError
from labelwise.campaign.labelling.slurm.settings import SlurmSettings
from labelwise.campaign.labelling.slurm.submission import (
    choose_size,
    list_options,
    share_out,
    write_job,
)
from labelwise.campaign.labelling.store import LabelStore, LabelWriter

_log = logging.getLogger(__name__)

#: Folder of the jobs, in that of the round.
JOBS_FOLDER = "slurm"
#: How a job ended, in SLURM's words, and the reason of a failure that it is.
REASONS = {
    "TIMEOUT": "time-out",
    "DEADLINE": "time-out",
    "OUT_OF_MEMORY": "out-of-memory",
    "NODE_FAIL": "node-failed",
    "BOOT_FAIL": "node-failed",
    "PREEMPTED": "preempted",
}
_LONGEST_LOOK_S = 5.0


class SlurmLabeller:
    """Runs an ASE calculator in jobs of SLURM.

    Structures are shared out over the elements of job arrays; each element runs the calculator
    labeller on its shard and writes every label into the store when it is known. This side reads
    the store, asks SLURM now and then how the jobs are, and submits again what is left of those
    that ended too early. All that it knows is on disk, so that it may be killed at any moment.

    Args:
        settings: The calculator, and what jobs are to be.
        directory: Where modules are searched first and relative stores begin.
        folder: Where the jobs' files lie, on a file system that the nodes see.
        done: Structures that have their outcome already.
        wait: Whether to wait; else ``LabelsPending`` is raised when all is submitted.
        store: The store that the settings name, if it is read already.
    """

    name = "slurm"

    def __init__(
        self,
        settings: SlurmSettings,
        directory: Path,
        folder: Path,
        *,
        done: Sequence[Task] = (),
        wait: bool = True,
        store: LabelStore | None = None,
    ) -> None:
        self._settings, self._directory = settings, directory.absolute()
        self._store_folder = self._directory / settings.store
        self._store = LabelStore(self._store_folder, settings) if store is None else store
        self._folder, self._done, self._wait = folder / JOBS_FOLDER, list(done), wait
        self._tasks: dict[str, Task] = {}
        self._is_open = False

    def check(self) -> None:
        """See that SLURM's commands are there; nothing is submitted.

        Raises:
            LabellingError: They are not.
        """
        Slurm.require()

    def label(self, queue: deque[Task]) -> Iterator[Outcome]:
        """Yield outcomes as they come; see ``Labeller``.

        Raises:
            LabelsPending: Jobs are under way and are not to be waited for, or were cancelled.
            LabellingError: SLURM refuses the jobs, or the calculator cannot be made on a node.
            WriteError: The disk is full, or a folder cannot be written to; nothing is lost.
            DamagedStateError: A file of the jobs or of the store cannot be read.
        """
        if not queue and not Ledger(self._folder).active_names:
            return
        self._open()
        try:
            yield from self._follow(queue)
        except LabellingError:
            self._follower.dismiss(patient=False)
            raise
        except KeyboardInterrupt:
            if self._ledger.active_names:
                _log.info("jobs %s* go on; run again to attach to them", self._ledger.prefix)
            raise
        else:
            self._follower.dismiss(patient=True)
        finally:
            self._writer.close()

    def _follow(self, queue: deque[Task]) -> Iterator[Outcome]:
        while True:
            while queue:
                task = queue.popleft()
                self._tasks[task.key] = task
            n_before = len(self._tasks)
            yield from self._settle()
            if queue:
                continue
            if not self._tasks:
                return
            is_moved = self._follower.look(self._tasks)
            if not is_moved and len(self._tasks) == n_before:
                self._go_on()

    def withdraw(self) -> bool:
        """Cancel every job that was not seen to end; what is asked for again is submitted again.

        What was asked for and has failed by then counts as told: it is calculated anew.

        Returns:
            Whether SLURM took it.
        """
        if not self._is_open:
            if not (self._folder / JOBS).exists():
                return True
            self._open()
        is_over = self._follower.dismiss(patient=False)
        self._store.refresh()
        for task in self._tasks.values():
            if self._find_failure(task) is not None:
                self._note_told(task)
        return is_over

    def _open(self) -> None:
        Slurm.require()
        self._ledger = Ledger(self._folder)
        self._ledger.begin()
        self._slurm = Slurm(self._settings.poll_s)
        self._writer = LabelWriter(self._store, f"{self._ledger.prefix}driver")
        self._follower = Follower(self._settings, self._ledger, self._slurm, self._store)
        self._is_open = True
        self._store.refresh()
        for task in self._done:  # told, and killed before that was written down
            if self._find_failure(task) is not None:
                self._note_told(task)

    def _settle(self) -> Iterator[Outcome]:
        """Yield what is known of the structures that are asked for."""
        self._store.refresh()
        for task in list(self._tasks.values()):
            ours = self._ledger.prefix
            outcome: Outcome | None = self._store.find_label(task.atoms, task.key, writers=ours)
            if outcome is None:
                outcome = self._find_failure(task) or self._give_up(task)
            if outcome is None:
                continue
            yield outcome
            # Whoever asks for the next has kept this one.
            del self._tasks[task.key]
            if isinstance(outcome, Failure):
                self._note_told(task)

    def _note_told(self, task: Task) -> None:
        n_known = self._store.count_failures(task.atoms, writers=self._ledger.prefix)
        self._ledger.note_told(task.key, n_known)

    def _find_failure(self, task: Task) -> Failure | None:
        """Return a failure that our own jobs found and that was not handed on yet."""
        return self._store.find_failure(
            task.atoms,
            task.key,
            writers=self._ledger.prefix,
            n_known=self._ledger.n_told.get(task.key, 0),
        )

    def _give_up(self, task: Task) -> Failure | None:
        """Return the failure that a structure is whose jobs ended too often without its label."""
        blames = self._ledger.blames.get(task.key, [])
        if len(blames) <= self._settings.retries:
            return None
        last = blames[-1]
        seconds = sum(each.seconds for each in blames)
        failure = Failure(
            task.key,
            REASONS.get(last.state, "job-failed"),
            f"{len(blames)} jobs ended without its label, the last one: {last.detail}",
            n_tries=len(blames),
            seconds=seconds,
        )
        self._writer.append(task, failure)
        self._store.refresh()
        return failure

    def _go_on(self) -> None:
        """Submit what can be submitted, else wait a while, or say that there is no waiting."""
        waiting = self._find_waiting()
        n_free = self._settings.max_jobs - sum(1 for _ in self._ledger.active)
        if waiting and n_free > 0:
            if self._slurm.may_submit:
                self._submit(waiting, n_free)
            else:
                time.sleep(self._look_s)
            return
        if not any(True for _ in self._ledger.active):
            cancelled = self._follower.cancelled & set(self._tasks)
            raise LabelsPending(
                f"jobs of {len(cancelled)} structures were cancelled; what they had calculated is "
                "kept. Run again to submit the rest again"
            )
        if not (self._wait or self._ledger.lost or self._follower.is_settling):
            raise LabelsPending(
                f"{len(self._tasks)} structures are labelled in SLURM's queue by jobs "
                f"{self._ledger.prefix}*; run again to take their labels"
            )
        time.sleep(self._look_s)

    @property
    def _look_s(self) -> float:
        return min(_LONGEST_LOOK_S, self._settings.poll_s / 3.0)

    def _find_waiting(self) -> list[str]:
        """Return the structures that no job is at, in the order in which they were asked for."""
        taken = {key for job, element in self._ledger.active for key in job.shards[element]}
        taken |= self._follower.cancelled
        return [key for key in self._tasks if key not in taken]

    def _submit(self, waiting: Sequence[str], n_free: int) -> None:
        """Submit structures of one time limit; those that ended a job get a job of their own."""
        ledger, settings = self._ledger, self._settings
        n_doublings = ledger.count_doublings(waiting[0])
        chosen = [key for key in waiting if ledger.count_doublings(key) == n_doublings]
        alone = [key for key in chosen if ledger.blames.get(key)]
        others = [key for key in chosen if not ledger.blames.get(key)]
        shards = share_out(alone, 1)[:n_free]
        n_free -= len(shards)
        if others and n_free > 0:
            size = choose_size(settings, len(others), n_free, self._store.mean_seconds)
            shards += share_out(others, size)[:n_free]
        job = ledger.plan(shards, n_doublings)
        script = write_job(job, settings, self._tasks, self._directory, self._store_folder)
        try:
            job_id = self._slurm.submit(script, list_options(job, settings))
        except SubmissionError as error:
            if error.is_refusal:
                ledger.note_revoked(job, str(error))
                self._bear_refusal(error)
                return
            _log.info("%s; the queue is asked whether it has %s", error, job.name)
            return
        ledger.note_submitted(job, job_id)
        n_structures = sum(len(keys) for keys in shards)
        _log.info("job %s: %d structures in %d parts", job_id, n_structures, len(shards))

    def _bear_refusal(self, error: SubmissionError) -> None:
        """Go on while others of our jobs are under way: a limit of jobs may refuse this one.

        Raises:
            LabellingError: There are none.
            LabelsPending: There are, and they are not waited for.
        """
        if not any(True for _ in self._ledger.active):
            raise LabellingError(
                f"SLURM refuses the job: {error}. Mend labeller.partition, labeller.sbatch or "
                "labeller.time and run again"
            ) from error
        if not self._wait:
            raise LabelsPending(
                f"SLURM takes no more jobs now ({error}); run again to take labels and to submit "
                "the rest"
            ) from error
        _log.info("SLURM takes no more jobs now (%s); trying again later", error)


register_labeller(
    "slurm",
    lambda settings, where: SlurmLabeller(
        settings, where.directory, where.folder, done=where.done, wait=where.wait
    ),
    SlurmSettings,
)
