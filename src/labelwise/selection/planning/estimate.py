"""What a selection will need, as arithmetic on measured rates; nothing is measured here.

Memory and disk are those that ``rules.planning`` and the feature store take. Time is that until
the rows are there, and of reading the picks: atoms times the measured seconds an atom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labelwise.errors import ArgumentError, SelectionError
from labelwise.features.store.columns import column_dtype
from labelwise.features.store.stored_rows import ZARR_DTYPES
from labelwise.features.store.view import DEFAULT_PIECE_BYTES
from labelwise.selection.planning.settings import RunSettings
from labelwise.selection.rules.planning import SelectionMemory, plan_selection

# The source of a structure and the screen's index of what it has seen, measured.
_STRUCTURE_BYTES = 500
_MOST_STRUCTURES = 10**12
_MB = 10**6


@dataclass(frozen=True)
class Workload:
    """What is to be chosen from what.

    Attributes:
        n_structures: Structures of the pool, as read.
        atoms_per_structure: Their mean number of atoms.
        n_select: Structures to choose, k.
        rule: By which rule.
        shortlist: Structures kept before the rule, K; None for all.
        n_train: Labelled structures, m.
        train_atoms_per_structure: Their mean number of atoms.
        count_error: Relative standard error of ``n_structures``.
    """

    n_structures: int
    atoms_per_structure: float
    n_select: int
    rule: str = "lcmd"
    shortlist: int | None = None
    n_train: int = 0
    train_atoms_per_structure: float = 0.0
    count_error: float = 0.0

    def check(self) -> None:
        """Raise ``ArgumentError`` unless so many can be chosen."""
        most = self.n_structures
        if not 1 <= self.n_select <= most:
            raise ArgumentError(
                f"n_select is {self.n_select}; allowed are 1 to {most}, the structures of the "
                "pool: give another -n, or plan for a larger pool by --n-structures"
            )


@dataclass(frozen=True)
class Machine:
    """What there is here.

    Attributes:
        n_cores: Cores that this process may use.
        load_average: Programs that wanted a core over the last minute, this one included.
        memory_bytes: Memory of the machine, or of the part of it that the process may use.
        free_bytes: Free on the disk of the store's folder.
    """

    n_cores: int
    load_average: float
    memory_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Trial:
    """What it took to screen and represent a sample.

    Attributes:
        n_structures: Structures that were represented.
        n_atoms: Their atoms.
        kept_fraction: Part of the structures read that passed the screen.
        screen_s_per_atom: Seconds to screen, by atom read.
        represent_s_per_atom: Seconds to represent, neighbour lists included, by atom; 0 where
            the rule looks at no rows.
        relative_error: Standard error of ``represent_s_per_atom``, from how batches differ; 0.5
            where there were fewer than three.
        width: Entries of a row, d; 0 where the rule looks at no rows.
        n_blocks: Parts of a row that are normalised on their own.
        peak_memory_bytes: The most memory the process held so far, the model included.
        device: Where the model ran.
        device_memory_bytes: The most that was allocated on a CUDA device, or None.
    """

    n_structures: int
    n_atoms: int
    kept_fraction: float
    screen_s_per_atom: float
    represent_s_per_atom: float
    relative_error: float
    width: int
    n_blocks: int
    peak_memory_bytes: int
    device: str
    device_memory_bytes: int | None = None

    @property
    def structures_per_second(self) -> float:
        """Structures represented in a second; 0 where none were."""
        seconds = self.represent_s_per_atom * self.n_atoms
        return self.n_structures / seconds if seconds > 0.0 else 0.0


@dataclass(frozen=True)
class Rates:
    """All that was measured.

    Attributes:
        read_s_per_atom: Seconds to read and parse, by atom.
        split_s_per_structure: Seconds to pass over a structure when the picks are read again.
        load_s: Seconds to load the model.
        trial: Of screening and representing.
        machine: What there is here.
    """

    read_s_per_atom: float
    split_s_per_structure: float
    load_s: float
    trial: Trial
    machine: Machine


@dataclass(frozen=True)
class StageEstimate:
    """The time of one stage, s, and a factor within which it is right in 95 of 100 cases."""

    name: str
    seconds: float
    factor: float

    @property
    def low_s(self) -> float:
        """The least it may take."""
        return self.seconds / self.factor

    @property
    def high_s(self) -> float:
        """The most it may take."""
        return self.seconds * self.factor


@dataclass(frozen=True)
class LargestPool:
    """The largest pools, in structures as read, that fit.

    Attributes:
        in_memory_bound: The rows on disk, what is kept by structure in memory.
        rows_in_memory: With all rows that the rule chooses from in memory, the fast way.
        on_disk: The store on the folder's disk.
        in_hours: All of it within the hours given; None where none were.
    """

    in_memory_bound: int
    rows_in_memory: int
    on_disk: int
    in_hours: int | None


@dataclass(frozen=True)
class Estimate:
    """What a selection will need.

    Attributes:
        workload: What is to be done.
        run: Where and how.
        stages: Seconds by stage, in order; they add up.
        peak_memory_bytes: Of the process.
        least_memory_bytes: Below which it cannot be done.
        memory_bound_bytes: The bound that was given, or half of what the process may use.
        store_bytes: Features on disk; 0 where the rule needs none.
        free_bytes: Free on that disk.
        cost: Of the machines, in the currency of the price; None without one.
        largest: The largest pools that fit.
    """

    workload: Workload
    run: RunSettings
    stages: tuple[StageEstimate, ...]
    peak_memory_bytes: int
    least_memory_bytes: int
    memory_bound_bytes: int
    store_bytes: int
    free_bytes: int
    cost: float | None
    largest: LargestPool

    @property
    def total(self) -> StageEstimate:
        """All stages together, without the choice; the factor is that of the slowest case."""
        seconds = sum(stage.seconds for stage in self.stages)
        high = sum(stage.high_s for stage in self.stages)
        return StageEstimate("total", seconds, high / seconds if seconds > 0.0 else 1.0)

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice."""
        return (
            self.least_memory_bytes <= self.memory_bound_bytes
            and self.store_bytes <= self.free_bytes
        )


def estimate_run(work: Workload, run: RunSettings, rates: Rates) -> Estimate:
    """Estimate what a selection will need.

    Args:
        work: What is to be done.
        run: Where and how.
        rates: What was measured, with the width of the rows.

    Returns:
        Times in s, sizes in bytes.

    Raises:
        ArgumentError: A number is out of range, or the speed of the GPUs is not known.
    """
    work.check()
    run.check(rates.trial.device)
    model = _Model(work, run, rates)
    n, free = work.n_structures, rates.machine.free_bytes
    bound = rates.machine.memory_bytes // 2 if run.memory_bytes is None else run.memory_bytes
    stages, held, least = model.stages(n), model.divide(n, bound), model.least_memory(n)
    cost = None
    if run.price_per_hour is not None:
        hours = sum(stage.seconds for stage in stages) / 3600.0
        cost = hours * run.price_per_hour * (1 if run.n_gpus is None else run.n_gpus)

    def has_room_for_rows(n_read: int) -> bool:
        found = model.divide(n_read, bound)
        return found is not None and found.cache_bytes >= model.row_memory(n_read)

    def is_in_time(n_read: int) -> bool:
        assert run.hours is not None  # noqa: S101  (asked below only then)
        return sum(stage.seconds for stage in model.stages(n_read)) <= 3600.0 * run.hours

    return Estimate(
        workload=work,
        run=run,
        stages=stages,
        peak_memory_bytes=least if held is None else held.peak_bytes,
        least_memory_bytes=least,
        memory_bound_bytes=bound,
        store_bytes=model.store_bytes(n),
        free_bytes=free,
        cost=cost,
        largest=LargestPool(
            in_memory_bound=find_largest(lambda n_read: model.divide(n_read, bound) is not None),
            rows_in_memory=find_largest(has_room_for_rows),
            on_disk=find_largest(lambda n_read: model.store_bytes(n_read) <= free),
            in_hours=None if run.hours is None else find_largest(is_in_time),
        ),
    )


class _Model:
    """Times and sizes as functions of the structures that the pool has as read."""

    def __init__(self, work: Workload, run: RunSettings, rates: Rates) -> None:
        self._work, self._run, self._rates, self._trial = work, run, rates, rates.trial
        self._width = rates.trial.width

    def stages(self, n_read: int) -> tuple[StageEstimate, ...]:
        """Return the stages, in order."""
        work, run, rates, trial = self._work, self._run, self._rates, self._trial
        n_gpus, n_cores = (1, 1) if run.n_gpus is None else (run.n_gpus, rates.machine.n_cores)
        atoms = n_read * work.atoms_per_structure
        train_atoms = work.n_train * work.train_atoms_per_structure
        counted = 1.0 + 2.0 * work.count_error
        reading_s = (rates.read_s_per_atom + trial.screen_s_per_atom) * (atoms + train_atoms)
        found = [
            StageEstimate("load the model", rates.load_s, 1.0),
            StageEstimate("read and screen", reading_s / n_cores, counted),
        ]
        if self._width > 0:
            if run.structures_per_second is None:
                kept_atoms = atoms * trial.kept_fraction + train_atoms
                seconds = kept_atoms * trial.represent_s_per_atom
            else:
                seconds = (self._n_kept(n_read) + work.n_train) / run.structures_per_second
            factor = (1.0 + 2.0 * trial.relative_error) * counted
            found.append(StageEstimate("represent", seconds / n_gpus, factor))
        again_s = rates.split_s_per_structure * n_read
        return (*found, StageEstimate("read the batch", again_s, counted))

    def store_bytes(self, n_read: int) -> int:
        """Return the size of the features on disk, labelled ones included."""
        if self._width == 0:
            return 0
        columns = column_dtype(self._trial.n_blocks).itemsize
        entry_bytes = np.dtype(ZARR_DTYPES[self._run.store_dtype]).itemsize
        row_bytes = self._width * entry_bytes + columns
        return (self._n_kept(n_read) + self._work.n_train) * row_bytes

    def row_memory(self, n_read: int) -> int:
        """Return the size of all rows of the pool in memory."""
        return 4 * self._width * self._n_kept(n_read)

    def divide(self, n_read: int, bound: int) -> SelectionMemory | None:
        """Return how a bound on memory is divided while choosing; None if it is too little."""
        work = self._work
        # The model, and where structures are.
        held = self._trial.peak_memory_bytes + _STRUCTURE_BYTES * (n_read + work.n_train)
        if self._width == 0:
            return None if held > bound else SelectionMemory(True, 0, 0, 1, held)
        try:
            return plan_selection(
                bound,
                n=max(1, self._n_kept(n_read)),
                d=self._width,
                n_train=work.n_train,
                n_select=work.n_select,
                rule=work.rule,
                shortlist=work.shortlist,
                piece_bytes=DEFAULT_PIECE_BYTES,
                resident=held,
            )
        except SelectionError:
            return None

    def least_memory(self, n_read: int) -> int:
        """Return the memory without which it cannot be done, to a megabyte."""
        return _MB * (1 + find_largest(lambda size: self.divide(n_read, size * _MB) is None))

    def _n_kept(self, n_read: int) -> int:
        return round(n_read * self._trial.kept_fraction)


def find_largest(holds: Callable[[int], bool]) -> int:
    """Return the largest n, 0 to 10¹², for which a condition holds that fails above some n."""
    if not holds(1):
        return 0
    low, high = 1, 2
    while high < _MOST_STRUCTURES and holds(high):
        low, high = high, 2 * high
    if high >= _MOST_STRUCTURES:
        return _MOST_STRUCTURES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
