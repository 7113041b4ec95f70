"""The contract of every labeller, and labellers by kind: structures in, labels or reasons out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from ase import Atoms
from jaxtyping import Float64
from pydantic import BaseModel, ConfigDict, Field

from labelwise.errors import ArgumentError, LabelwiseError, check_name
from labelwise.runtime.plugins import load_plugins
from labelwise.structures import Source

#: A force component beyond this is a failed calculation, eV/Å.
MAX_FORCE = 100.0
#: An energy farther than this from what the composition lets expect is one too, eV/atom.
MAX_ENERGY_DEVIATION = 10.0
#: So many failures in a row are allowed where nothing is said, at least.
_LEAST_FAILURES = 20
#: Settings of labellers that change no label: where and how fast calculations are made.
MACHINE_KEYS = (
    "n_workers", "n_threads", "time_limit_s", "store", "partition", "sbatch", "structures_per_job",
    "workers_per_job", "time", "max_time", "max_jobs", "setup", "retries", "poll_s", "settle_s",
)  # fmt: skip


class LabellingError(LabelwiseError, RuntimeError):
    """Labelling as such does not work: a missing calculator, a foreign file."""


class LabelsPending(LabelwiseError, RuntimeError):  # noqa: N818 - a state, not a mistake
    """Labels are being made elsewhere; run again when they are there."""


@dataclass(frozen=True)
class Task:
    """One structure to be labelled.

    Attributes:
        key: Its content hash, see ``hash_structure``.
        atoms: The structure as read; not to be modified. Positions in Å.
        source: File and frame.
    """

    key: str
    atoms: Atoms
    source: Source


@dataclass(frozen=True)
class Label:
    """What a calculation gave.

    Attributes:
        key: The structure's content hash.
        energy: Total energy, eV.
        forces: (n_atoms, 3) float64, eV/Å.
        n_tries: Calculations that were started for it.
        seconds: Wall time of all of them.
        stress: (3, 3) float64, eV/Å³, of a structure periodic in three directions; None if it is
            not known.
    """

    key: str
    energy: float
    forces: Float64[np.ndarray, "n_atoms 3"]
    n_tries: int = 1
    seconds: float = 0.0
    stress: Float64[np.ndarray, "axes=3 axes=3"] | None = None


@dataclass(frozen=True)
class Failure:
    """Why there is no label.

    ==============  ==============================================================
    reason          what happened
    ==============  ==============================================================
    not-converged   the calculation, its results or the file says that it did not converge
    exception       it raised something else
    time-out        it took longer than the limit and was killed
    crashed         its process ended
    not-finite      the energy or a force is NaN or infinite
    zeros           the energy or all forces of a molecule are exactly zero
    absurd-energy   far from what the composition lets expect
    absurd-forces   a force component beyond the limit
    no-label        the pool holds no label for it (replay)
    reported        the returned file says that it failed (files)
    out-of-memory   its job was killed for memory, again and again (slurm; so are the following)
    node-failed     the node failed
    preempted       its job had to make room for others
    job-failed      its job ended in another way before its label was there
    ==============  ==============================================================

    Attributes:
        key: The structure's content hash.
        reason: One of the names above.
        detail: What was found, in words.
        n_tries: Calculations that were started for it.
        seconds: Wall time of all of them.
    """

    key: str
    reason: str
    detail: str
    n_tries: int = 1
    seconds: float = 0.0


Outcome: TypeAlias = Label | Failure


@runtime_checkable
class Labeller(Protocol):
    """Makes labels; ``replay``, ``calculator``, ``files`` and ``slurm`` fulfil it."""

    name: str

    def label(self, queue: deque[Task]) -> Iterator[Outcome]:
        """Label the tasks of a queue, one outcome for each.

        Tasks are taken from the left when there is room for one. The caller may append
        to the queue whenever it has got an outcome, for instance a replacement for a
        failed structure, and keeps each outcome safe before it asks for the next.

        Yields:
            A label or a failure for each task, in any order, as soon as it is known.

        Raises:
            LabelsPending: The rest is being made elsewhere (``files``, ``slurm``).
            LabellingError: No label can be made at all.
        """
        ...


@runtime_checkable
class Precheck(Protocol):
    """A labeller that can tell at once whether it will work."""

    def check(self) -> None:
        """See that labels can be made here; nothing is calculated.

        Raises:
            LabellingError: They cannot.
        """
        ...


@runtime_checkable
class Withdrawal(Protocol):
    """A labeller whose calculations go on when nobody waits for them."""

    def withdraw(self) -> bool:
        """End what was begun, by this process or an earlier one; what has come is kept.

        Returns:
            Whether nothing goes on any more.
        """
        ...


class LabellerSettings(BaseModel):
    """What every labeller has: when a label is not believed. Others add fields of their own.

    Attributes:
        kind: Which labeller.
        max_force: Largest force component, eV/Å.
        max_energy_deviation: Largest deviation from what the composition lets expect,
            eV/atom.
        max_failures_in_a_row: So many failures without a label between them stop the run,
            because the calculation as such must be wrong; None for max(20, 2 batches).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    max_force: float = Field(default=MAX_FORCE, gt=0.0)
    max_energy_deviation: float = Field(default=MAX_ENERGY_DEVIATION, gt=0.0)
    max_failures_in_a_row: int | None = Field(default=None, ge=1)

    def count_failures_allowed(self, n_at_once: int) -> int:
        """Return how many failures in a row stop a run.

        Args:
            n_at_once: Structures of a batch, or calculations at once.
        """
        limit = self.max_failures_in_a_row
        return max(_LEAST_FAILURES, 2 * n_at_once) if limit is None else limit


@dataclass(frozen=True)
class LabellingRound:
    """What a labeller is made for.

    Attributes:
        directory: The campaign's folder.
        folder: That of the round under way.
        done: Structures of the round that have their outcome already.
        energy_key: Info key of the pool's total energies, eV.
        forces_key: Array key of the pool's forces, eV/Å.
        stress_key: Info key of the pool's stress, None if it is not read.
        wait: Whether to wait for labels that are made elsewhere.
    """

    directory: Path
    folder: Path
    done: list[Task]
    energy_key: str
    forces_key: str
    stress_key: str | None = None
    wait: bool = True


def cancel(labeller: Labeller) -> None:
    """End calculations that go on although nobody waits for them.

    Raises:
        ArgumentError: It is not a labeller of which any could.
        LabellingError: They could not be ended.
    """
    if not isinstance(labeller, Withdrawal):
        raise ArgumentError(f"the labeller is {labeller.name!r}, which has no jobs to be cancelled")
    if labeller.withdraw() is False:
        raise LabellingError("the queue did not take the cancelling of jobs; try again later")


MakeLabeller: TypeAlias = Callable[[Any, LabellingRound], Labeller]

_KINDS: dict[str, tuple[type[LabellerSettings], MakeLabeller]] = {}


def register_labeller(
    kind: str, make: MakeLabeller, settings: type[LabellerSettings] = LabellerSettings
) -> None:
    """Offer a labeller to campaigns under ``labeller: {kind: ...}``.

    Args:
        kind: A name that is not taken.
        make: ``make(settings, round) -> Labeller``, called once a round.
        settings: What ``campaign.yaml`` may say of it.

    Example:
        >>> from labelwise import register_labeller
        >>> from labelwise.campaign.labelling import Label
        >>> class Springs:
        ...     name = "springs"
        ...     def label(self, queue):
        ...         while queue:
        ...             task = queue.popleft()
        ...             gap = task.atoms.positions - task.atoms.positions.mean(axis=0)
        ...             yield Label(task.key, 0.5 * (gap**2).sum(), -gap)
        >>> register_labeller("springs", lambda settings, where: Springs())

    Raises:
        ArgumentError: The name is taken.
    """
    if kind in _KINDS:
        raise ArgumentError(f"the labeller {kind!r} exists already: choose another name")
    _KINDS[kind] = (settings, make)


def parse_settings(section: LabellerSettings | Mapping[str, Any]) -> LabellerSettings:
    """Return the settings that a section of ``campaign.yaml`` holds.

    Raises:
        ArgumentError: Its kind is missing or unknown.
        pydantic.ValidationError: A key or a value is not one of that kind.
    """
    if isinstance(section, LabellerSettings):
        return section
    kind = section.get("kind") if isinstance(section, Mapping) else None
    if kind not in _KINDS:
        check_name("kind", str(kind), list_labellers())
    return _KINDS[str(kind)][0].model_validate(section)


def list_labellers() -> list[str]:
    """Return the kinds of labellers, sorted, those of plugins too."""
    load_plugins("labellers")
    return sorted(_KINDS)


def settings_keys() -> set[str]:
    """Return all keys that a labeller of any kind may have in ``campaign.yaml``."""
    return {key for settings, _ in _KINDS.values() for key in settings.model_fields}


def make_labeller(settings: LabellerSettings, where: LabellingRound) -> Labeller:
    """Make the labeller that settings describe, for one round.

    Raises:
        ArgumentError: A setting is out of range.
    """
    return _KINDS[settings.kind][1](settings, where)
