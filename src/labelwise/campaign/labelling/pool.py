"""Labels for the structures of any files, without a campaign: what is there stays."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
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
)
from labelwise.campaign.labelling.calculator import CalculatorLabeller, CalculatorSettings
from labelwise.campaign.labelling.checks import LabelChecks
from labelwise.campaign.labelling.level import CalculationSettings, Level
from labelwise.campaign.labelling.slurm.labeller import SlurmLabeller
from labelwise.campaign.labelling.slurm.settings import SlurmSettings
from labelwise.campaign.labelling.store import LabelStore
from labelwise.campaign.lock import campaign_lock
from labelwise.errors import ArgumentError
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures import Frame
from labelwise.structures.label_keys import LabelKeys
from labelwise.structures.labels import DEFAULT_STRESS_KEY, set_stress, stress_keys
from labelwise.structures.levels import LEVEL_KEY

_LEAST_FAILURES = 20


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
    progress: ProgressCallback = ignore_progress,
) -> LabelledPool:
    """Label structures, each once: what the store has is taken from there.

    Killed at any moment, the next call goes on with what is missing.

    Args:
        frames: The structures; not modified.
        settings: The calculator, with a store; ``kind`` tells where it runs.
        folder: Where failed calculations and jobs are kept, and where relative stores begin.
        wait: Whether to wait for a queue.
        retry_failed: Calculate anew what failed before.
        progress: Called with the stage, done, total.

    Raises:
        ArgumentError: The settings name no store, or a kind that cannot do this.
        LockedError: Another process labels in this folder.
        LabelsPending: A queue labels them and is not waited for.
        LabellingError: No label can be made, or only failures come.
        WriteError: The disk is full; nothing is lost.
        DamagedStateError: The store cannot be read.
    """
    if settings.store is None:
        raise ArgumentError("store is None; allowed is a folder, where labels are kept")
    folder.mkdir(parents=True, exist_ok=True)
    tasks: dict[str, Task] = {}
    level = settings.describe_level()
    for frame in frames:
        key = level.name_label(frame.atoms)
        tasks.setdefault(key, Task(key, frame.atoms, frame.source))
    with campaign_lock(folder):
        store = LabelStore(folder / settings.store, settings)
        store.refresh()
        found = _find_known(store, tasks, with_failures=not retry_failed)
        n_known = len(found)
        missing = deque(task for key, task in tasks.items() if key not in found)
        labeller = _make_labeller(settings, folder, done=list(missing), wait=wait)
        fresh: dict[str, Outcome] = {}
        progress("label", n_known, len(tasks))
        for outcome in _label(labeller, missing, _count_failures_allowed(settings)):
            fresh[outcome.key] = outcome
            progress("label", n_known + len(fresh), len(tasks))
    checks = LabelChecks(max_force=settings.max_force)
    found |= fresh
    outcomes = [
        checks.check(tasks[key].atoms, each) if isinstance(each, Label) else each
        for key, each in found.items()
    ]
    return LabelledPool(
        frames,
        {each.key: each for each in outcomes if isinstance(each, Label)},
        {each.key: each for each in outcomes if isinstance(each, Failure)},
        level,
        n_known,
        sum(each.n_tries > 0 for each in fresh.values()),
        sum((each.seconds for each in fresh.values()), 0.0),
    )


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
    settings: CalculationSettings, folder: Path, *, done: Sequence[Task], wait: bool
) -> Labeller:
    """Return the labeller; failures of ``done`` that are in the store are known already."""
    if isinstance(settings, SlurmSettings):
        return SlurmLabeller(settings, folder, folder, done=done, wait=wait)
    if isinstance(settings, CalculatorSettings):
        return CalculatorLabeller(settings, folder)
    raise ArgumentError(f"the labeller is {settings.kind!r}; allowed are calculator and slurm")


def _count_failures_allowed(settings: CalculationSettings) -> int:
    limit = settings.max_failures_in_a_row
    return max(_LEAST_FAILURES, 2 * settings.n_at_once) if limit is None else limit


def _label(labeller: Labeller, queue: deque[Task], limit: int) -> Iterator[Outcome]:
    """Yield outcomes until nothing but failures comes.

    Raises:
        LabellingError: So many came in a row that the calculation as such must be wrong.
    """
    n_in_a_row = 0
    with closing(labeller.label(queue)) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
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
