"""What a selection will need, as arithmetic on measured rates; nothing is measured here.

Memory and disk are those that ``rules.planning`` and the feature store take. Time is that until
the rows are there, and of reading the picks: atoms times the measured seconds an atom.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from labelwise.errors import ArgumentError, SelectionError, check_name
from labelwise.features.store.columns import column_dtype
from labelwise.features.store.view import DEFAULT_PIECE_BYTES
from labelwise.selection.planning.trial import Trial
from labelwise.selection.rules.planning import SelectionMemory, plan_selection

#: Bytes of a feature on disk, by the type it is stored in.
STORE_DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}

# The source of a structure and the screen's index of what it has seen, measured.
_STRUCTURE_BYTES = 500


_MOST_STRUCTURES = 10**12
_MB = 10**6


@dataclass(frozen=True)
class RunSettings:
    """Where and how the selection will run.

    Attributes:
        store_dtype: Type in which features are stored, of ``STORE_DTYPES``.
        memory_bytes: The bound on the process's memory; None for half of what it may use.
        n_gpus: GPUs that represent at once, while the cores of this machine read and build
            neighbour lists; None for one process, as it was measured.
        structures_per_second: Structures represented in a second by one such GPU, or by the
            machine if ``n_gpus`` is None; None for what was measured.
        price_per_hour: Of the machine, or of one GPU with its share of one.
        hours: Time that is to be kept within, for the largest pool.
    """

    store_dtype: str = "float32"
    memory_bytes: int | None = None
    n_gpus: int | None = None
    structures_per_second: float | None = None
    price_per_hour: float | None = None
    hours: float | None = None

    def check(self, device: str) -> None:
        """Raise unless a run can be estimated.

        Args:
            device: Where the model runs here.

        Raises:
            ArgumentError: A number is out of range, or the speed of the GPUs is not known.
        """
        check_name("store_dtype", self.store_dtype, STORE_DTYPES)
        for name, value, is_allowed in (
            ("memory_bytes", self.memory_bytes, _is_positive),
            ("gpus", self.n_gpus, _is_positive),
            ("structures_per_second", self.structures_per_second, _is_positive),
            ("price_per_hour", self.price_per_hour, _is_natural),
            ("hours", self.hours, _is_positive),
        ):
            if value is not None and not is_allowed(value):
                least = "above 0" if is_allowed is _is_positive else "at least 0"
                raise ArgumentError(f"{name} is {value}; it must be finite and {least}")
        if self.n_gpus is None or self.structures_per_second is not None:
            return
        if not device.startswith("cuda"):
            raise ArgumentError(
                f"gpus is {self.n_gpus}, but the model runs on {device}, which does not tell how "
                "fast a GPU is: run 'labelwise plan --json' on a machine with such a GPU, and "
                "give here what it says under represent_structures_per_second, as "
                "--structures-per-second"
            )


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
                "pool: give another -n, or plan for a larger pool by --structures"
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
    n = work.n_structures
    stages = model.stages(n)
    cost = None
    if run.price_per_hour is not None:
        n_machines = 1 if run.n_gpus is None else run.n_gpus
        cost = sum(stage.seconds for stage in stages) / 3600.0 * run.price_per_hour * n_machines
    return Estimate(
        workload=work,
        run=run,
        stages=stages,
        peak_memory_bytes=model.peak_memory(n),
        least_memory_bytes=model.least_memory(n),
        memory_bound_bytes=model.memory_bound,
        store_bytes=model.store_bytes(n),
        free_bytes=rates.machine.free_bytes,
        cost=cost,
        largest=model.largest(),
    )


def _is_positive(value: int | float) -> bool:
    return math.isfinite(value) and value > 0


def _is_natural(value: int | float) -> bool:
    return math.isfinite(value) and value >= 0


class _Model:
    """Times and sizes as functions of the size of the pool."""

    def __init__(self, work: Workload, run: RunSettings, rates: Rates) -> None:
        self._work, self._run, self._rates = work, run, rates
        self._width = rates.trial.width
        half = rates.machine.memory_bytes // 2
        self.memory_bound = half if run.memory_bytes is None else run.memory_bytes
        self._n_cores = 1 if run.n_gpus is None else rates.machine.n_cores

    def stages(self, n_read: int) -> tuple[StageEstimate, ...]:
        """Return the stages of a pool of ``n_read`` structures."""
        work, rates = self._work, self._rates
        atoms = n_read * work.atoms_per_structure
        train_atoms = work.n_train * work.train_atoms_per_structure
        counted = 1.0 + 2.0 * work.count_error
        trial = (1.0 + 2.0 * rates.trial.relative_error) * counted
        reading = (rates.read_s_per_atom + rates.trial.screen_s_per_atom) / self._n_cores
        found = [
            StageEstimate("load the model", rates.load_s, 1.0),
            StageEstimate("read and screen", reading * (atoms + train_atoms), counted),
        ]
        if self._width > 0:
            kept_atoms = atoms * rates.trial.kept_fraction + train_atoms
            seconds = self._represent_s(self._n_kept(n_read), kept_atoms)
            found.append(StageEstimate("represent", seconds, trial))
        again = rates.split_s_per_structure * n_read
        return (*found, StageEstimate("read the batch", again, counted))

    def _n_kept(self, n_read: int) -> int:
        return round(n_read * self._rates.trial.kept_fraction)

    def _represent_s(self, n: int, atoms: float) -> float:
        run = self._run
        n_gpus = 1 if run.n_gpus is None else run.n_gpus
        if run.structures_per_second is not None:
            return (n + self._work.n_train) / (run.structures_per_second * n_gpus)
        return atoms * self._rates.trial.represent_s_per_atom / n_gpus

    def _row_bytes(self) -> int:
        columns = column_dtype(self._rates.trial.n_blocks).itemsize
        return self._width * STORE_DTYPES[self._run.store_dtype] + columns

    def store_bytes(self, n_read: int) -> int:
        """Return the size of the features on disk, labelled ones included."""
        if self._width == 0:
            return 0
        return (self._n_kept(n_read) + self._work.n_train) * self._row_bytes()

    def _row_memory(self, n_read: int) -> int:
        """Return the size of all rows of the pool in memory."""
        return 4 * self._width * self._n_kept(n_read)

    def _before_choosing(self, n_read: int) -> int:
        """Return what is held when the choosing begins: the model, and where structures are."""
        structures = _STRUCTURE_BYTES * (n_read + self._work.n_train)
        return self._rates.trial.peak_memory_bytes + structures

    def _divide(self, n_read: int, bound: int) -> SelectionMemory | None:
        """Return how a bound on memory is divided while choosing; None if it is too little."""
        work = self._work
        try:
            return plan_selection(
                bound,
                n=max(1, self._n_kept(n_read)),
                d=max(1, self._width),
                n_train=work.n_train,
                n_select=work.n_select,
                rule=work.rule,
                shortlist=work.shortlist,
                piece_bytes=DEFAULT_PIECE_BYTES,
                resident=self._before_choosing(n_read),
            )
        except SelectionError:
            return None

    def least_memory(self, n_read: int) -> int:
        """Return the memory without which it cannot be done, to a megabyte."""
        if self._width == 0:
            return self._before_choosing(n_read)
        too_little = find_largest(lambda size: self._divide(n_read, size * _MB) is None)
        return (too_little + 1) * _MB

    def peak_memory(self, n_read: int) -> int:
        """Return the memory that will be used: rows as far as they have room."""
        held = self._divide(n_read, self.memory_bound) if self._width > 0 else None
        return self.least_memory(n_read) if held is None else held.peak_bytes

    def _has_room(self, n_read: int) -> bool:
        if self._width == 0:
            return self._before_choosing(n_read) <= self.memory_bound
        return self._divide(n_read, self.memory_bound) is not None

    def _has_room_for_rows(self, n_read: int) -> bool:
        held = self._divide(n_read, self.memory_bound)
        return held is not None and held.cache_bytes >= self._row_memory(n_read)

    def largest(self) -> LargestPool:
        """Return the largest pools that fit."""
        hours, free = self._run.hours, self._rates.machine.free_bytes
        return LargestPool(
            in_memory_bound=find_largest(self._has_room),
            rows_in_memory=find_largest(self._has_room_for_rows),
            on_disk=find_largest(lambda n: self.store_bytes(n) <= free),
            in_hours=None
            if hours is None
            else find_largest(lambda n: self._total_s(n) <= 3600.0 * hours),
        )

    def _total_s(self, n_read: int) -> float:
        return sum(stage.seconds for stage in self.stages(n_read))


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
