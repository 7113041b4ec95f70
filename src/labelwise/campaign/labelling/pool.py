"""Labels for the structures of any files, without a campaign: what is there stays."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from labelwise.campaign.labelling.base import (
    Failure,
    Label,
    Labeller,
    LabellingError,
    Outcome,
    Task,
    Withdrawal,
    cancel,
)
from labelwise.campaign.labelling.calculator import (
    SCRATCH,
    CalculatorLabeller,
    CalculatorSettings,
)
from labelwise.campaign.labelling.checks import LabelChecks
from labelwise.campaign.labelling.level import CalculationSettings, Level
from labelwise.campaign.labelling.slurm.labeller import JOBS_FOLDER, SlurmLabeller
from labelwise.campaign.labelling.slurm.ledger import REVOKED, Ledger
from labelwise.campaign.labelling.slurm.settings import SlurmSettings
from labelwise.campaign.labelling.store import LabelStore
from labelwise.campaign.lock import temporary_lock
from labelwise.errors import ArgumentError
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures import Frame
from labelwise.structures.label_keys import LabelKeys
from labelwise.structures.labels import DEFAULT_STRESS_KEY, set_stress, stress_keys
from labelwise.structures.levels import LEVEL_KEY


@dataclass(frozen=True)
class LabelledPool:
    """What labelling files gave.

    Attributes:
        frames: The structures as read.
        labels: By the names of ``Level.name_label``.
        failures: Reasons why there is none, by the same.
        level: The level of theory.
        n_known: Structures whose label was in the store.
        n_calculated: Structures that were calculated now.
        seconds: Wall time of the calculations that were made now, all together.
    """

    frames: Sequence[Frame]
    labels: dict[str, Label]
    failures: dict[str, Failure]
    level: Level
    n_known: int
    n_calculated: int
    seconds: float

    def iter_failed(self) -> Iterator[tuple[Frame, Failure]]:
        """Yield the structures that have no label, with the reason."""
        for frame in self.frames:
            failure = self.failures.get(self.level.name_label(frame.atoms))
            if failure is not None:
                yield frame, failure

    def make_labelled(self, keys: LabelKeys) -> list[Atoms]:
        """Return copies of the structures that have a label, with it, in the order as read.

        A stress that a structure had before is dropped: it is no part of the label.

        Args:
            keys: Info key of the energy, eV, and array key of the forces, eV/Å.
        """
        labelled = []
        for frame in self.frames:
            label = self.labels.get(self.level.name_label(frame.atoms))
            if label is not None:
                atoms = frame.atoms.copy()
                atoms.calc = None
                for key in stress_keys(DEFAULT_STRESS_KEY):
                    atoms.info.pop(key, None)
                atoms.info |= {keys.energy_key: label.energy, LEVEL_KEY: self.level.name}
                atoms.arrays[keys.forces_key] = label.forces.copy()
                if label.stress is not None:
                    set_stress(atoms, label.stress, DEFAULT_STRESS_KEY)
                labelled.append(atoms)
        return labelled


def label_frames(
    frames: Sequence[Frame],
    settings: CalculationSettings,
    folder: Path,
    *,
    wait: bool = True,
    retry_failed: bool = False,
    break_lock: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> LabelledPool:
    """Label structures, each once: what the store has is taken from there.

    Killed at any moment, the next call goes on with what is missing.

    Args:
        frames: The structures; not modified.
        settings: The calculator, with a store; ``kind`` tells where it runs.
        folder: Where failed calculations and jobs are kept, and where relative stores begin;
            removed when nothing of them is left.
        wait: Whether to wait for a queue.
        retry_failed: Calculate anew what failed before.
        break_lock: Take the folder from a process that has ended for sure.
        progress: Called with the stage, done, total.

    Raises:
        ArgumentError: There is no structure, the settings name no store, or a kind that cannot do
            this.
        LockedError: Another process labels in this folder.
        LabelsPending: A queue labels them and is not waited for.
        LabellingError: No label can be made, or only failures come.
        WriteError: The disk is full; nothing is lost.
        DamagedStateError: The store cannot be read.
    """
    if settings.store is None:
        raise ArgumentError("store is None; allowed is a folder, where labels are kept")
    if not frames:
        raise ArgumentError("there is no structure to be labelled")
    tasks: dict[str, Task] = {}
    level = settings.describe_level()
    for frame in frames:
        key = level.name_label(frame.atoms)
        tasks.setdefault(key, Task(key, frame.atoms, frame.source))
    with _own(folder, break_lock=break_lock):
        store = LabelStore(folder / settings.store, settings)
        store.refresh()
        known = _find_known(store, tasks, with_failures=not retry_failed)
        missing = deque(task for key, task in tasks.items() if key not in known)
        labeller = _make_labeller(settings, folder, store, done=list(missing), wait=wait)
        fresh: dict[str, Outcome] = {}
        progress("label", len(known), len(tasks))
        for outcome in _label(labeller, missing, tasks, settings):
            fresh[outcome.key] = outcome
            progress("label", len(known) + len(fresh), len(tasks))
        outcomes = _check_together(known | fresh, tasks, settings)
        labels = {key: each for key, each in outcomes.items() if isinstance(each, Label)}
        if len(labels) == len(tasks):
            _remove_traces(folder)
    return LabelledPool(
        frames,
        labels,
        {key: each for key, each in outcomes.items() if isinstance(each, Failure)},
        level,
        len(known),
        sum(each.n_tries > 0 for each in fresh.values()),
        sum((each.seconds for each in fresh.values()), 0.0),
    )


def cancel_labelling(settings: CalculationSettings, folder: Path, *, break_lock: bool) -> None:
    """Cancel the jobs that ``label_frames`` has left in a queue; the next call submits again.

    Args:
        settings: As they were given to it.
        folder: Likewise.
        break_lock: Take the folder from a process that has ended for sure.

    Raises:
        ArgumentError: Nothing is labelled in a queue by these settings.
        LockedError: Another process labels in this folder.
        LabellingError: The queue does not take it.
    """
    with _own(folder, break_lock=break_lock):
        store = LabelStore(folder / str(settings.store), settings)
        cancel(_make_labeller(settings, folder, store, done=[], wait=False))


@contextmanager
def _own(folder: Path, *, break_lock: bool) -> Iterator[None]:
    """Have a folder for oneself, and remove it if nothing was kept in it."""
    with temporary_lock(folder, break_lock=break_lock):
        try:
            yield
        finally:
            if not (folder / JOBS_FOLDER).exists():  # jobs write there whenever they like
                with suppress(OSError):
                    (folder / SCRATCH).rmdir()


def _find_known(
    store: LabelStore, tasks: dict[str, Task], *, with_failures: bool
) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for key, task in tasks.items():
        outcome: Outcome | None = store.find_label(task.atoms, key)
        if outcome is None and with_failures:
            outcome = store.find_failure(task.atoms, key)
        if outcome is not None:
            found[key] = outcome
    return found


def _make_labeller(
    settings: CalculationSettings,
    folder: Path,
    store: LabelStore,
    *,
    done: Sequence[Task],
    wait: bool,
) -> Labeller:
    """Return the labeller; failures of ``done`` that are in the store are known already."""
    if isinstance(settings, SlurmSettings):
        return SlurmLabeller(settings, folder, folder, done=done, wait=wait, store=store)
    if isinstance(settings, CalculatorSettings):
        return CalculatorLabeller(settings, folder, store=store)
    raise ArgumentError(f"the labeller is {settings.kind!r}; allowed are calculator and slurm")


def _check_together(
    outcomes: dict[str, Outcome], tasks: dict[str, Task], settings: CalculationSettings
) -> dict[str, Outcome]:
    """Return outcomes where labels that cannot be true, by the others too, are failures.

    By all of them and not by those that came before, so that it does not matter what was labelled
    when.
    """
    limits = settings.model_dump(include={"max_force", "max_energy_deviation"})
    checked = _check(outcomes, tasks, LabelChecks(**limits))
    labels = [each for each in checked.values() if isinstance(each, Label)]
    structures = [tasks[each.key].atoms for each in labels]
    together = LabelChecks(structures, [each.energy for each in labels], **limits)
    return _check(checked, tasks, together)


def _check(
    outcomes: dict[str, Outcome], tasks: dict[str, Task], checks: LabelChecks
) -> dict[str, Outcome]:
    return {
        key: checks.check(tasks[key].atoms, each) if isinstance(each, Label) else each
        for key, each in outcomes.items()
    }


def _remove_traces(folder: Path) -> None:
    """Remove what was kept of calculations and jobs, unless a job may still come or go on."""
    jobs = Ledger(folder / JOBS_FOLDER).jobs.values()
    if not any(job.open_elements or (job.folder / REVOKED).exists() for job in jobs):
        for name in (SCRATCH, JOBS_FOLDER):
            shutil.rmtree(folder / name, ignore_errors=True)


def _label(
    labeller: Labeller, queue: deque[Task], tasks: dict[str, Task], settings: CalculationSettings
) -> Iterator[Outcome]:
    """Yield outcomes until nothing but failures comes.

    Raises:
        LabellingError: So many came in a row that the calculation as such must be wrong.
    """
    checks = LabelChecks(max_force=settings.max_force)
    limit = settings.count_failures_allowed(settings.n_at_once)
    n_in_a_row = 0
    with closing(labeller.label(queue)) as outcomes:  # type: ignore[type-var]
        for made in outcomes:
            outcome = checks.check(tasks[made.key].atoms, made) if isinstance(made, Label) else made
            yield outcome
            n_in_a_row = n_in_a_row + 1 if isinstance(outcome, Failure) else 0
            if n_in_a_row >= limit and isinstance(outcome, Failure):
                break
        else:
            return
    if isinstance(labeller, Withdrawal):
        labeller.withdraw()
    raise LabellingError(
        f"{n_in_a_row} calculations in a row failed, the last one with: {outcome.reason} "
        f"({outcome.detail}). Mend what is wrong and run again with --retry-failed; if so many "
        "failures are to be expected, raise max_failures_in_a_row"
    )
