"""What a study will take, and how it is made smaller until it fits a budget.

The planning is arithmetic on given numbers; ``budget`` measures them.
"""

from __future__ import annotations

import heapq
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelwise.campaign.config import CampaignConfig, HeldOut, SelectionSection
from labelwise.campaign.training import member_files
from labelwise.errors import ArgumentError
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.selection.names import JOINT_RULE
from labelwise.studies.comparison.presets import count_structures
from labelwise.studies.comparison.study import Cell, StudyConfig, check_study, list_cells

#: As far as a study is scaled; beyond, differences between methods drown.
MIN_UPDATES, MIN_VALIDATIONS, MIN_ROUNDS, MIN_SEEDS = 200, 5, 6, 1
#: A thinned pool has at least so many structures, and so many for each label of the last round.
MIN_POOL, MIN_POOL_PER_LABEL = 300, 10
#: Predicted times are multiplied by this: processes that run at once slow each other down.
SAFETY = 1.15
_UPDATE_STEP = 50


@dataclass(frozen=True)
class Probe:
    """What single steps take on this machine, in one process.

    Attributes:
        update_s: Batch size to seconds of one update, s.
        select_s: Key of a selection (``selection_key``) to seconds a candidate, s.
        predict_s: Energies and forces of one structure, s.
        validate_s: The same within a fine-tuning, where graphs are at hand, s.
        read_s: Reading and comparing one structure, s.
        start_s: Beginning a campaign, s.
    """

    update_s: Mapping[int, float]
    select_s: Mapping[str, float]
    predict_s: float
    validate_s: float
    read_s: float
    start_s: float = 0.0


@dataclass(frozen=True)
class PoolSize:
    """How many structures a pool and its sets have."""

    pool: int
    train: int
    valid: int
    test: int


@dataclass(frozen=True)
class Forecast:
    """What a study is expected to take.

    Attributes:
        seconds: Wall time of the whole with its processes, s.
        cell_s: Of each campaign, (pool, method, seed) to seconds, s.
        n_updates: Most updates of a round.
    """

    seconds: float
    cell_s: Mapping[tuple[str, str, int], float]
    n_updates: int

    def by_method(self) -> dict[str, float]:
        """Return the seconds of each method's campaigns together, s."""
        total: dict[str, float] = {}
        for (_, method, _), seconds in self.cell_s.items():
            total[method] = total.get(method, 0.0) + seconds
        return total


def format_duration(seconds: float) -> str:
    """Return a duration in words, to two or three digits: ``42 s``, ``55 min``, ``3.2 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def selection_key(selection: SelectionSection) -> str:
    """Return one word for what a selection has to compute for each candidate."""
    if selection.rule in ("random", "committee-e", "committee-f"):
        return selection.rule.partition("-")[0]
    name = JOINT_RULE if selection.rule == JOINT_RULE else selection.representation
    options = {
        "parameters": selection.parameters,
        "reduction": selection.reduction,
        "n_probes": selection.n_probes,
        "sketch_dim": selection.sketch_dim,
    }
    default = SelectionSection()
    own = [f"{key}={value}" for key, value in options.items() if value != getattr(default, key)]
    return " ".join([name, *own])


def count_sets(study: StudyConfig, base: Path) -> dict[str, PoolSize]:
    """Count the structures of a study's pools.

    Args:
        study: The study.
        base: Where its relative paths begin.

    Raises:
        ReadError: A file that cannot be read.
    """
    sizes = {}
    for name, section in study.pools.items():
        n_train = count_structures(section.train, base)
        sizes[name] = PoolSize(
            pool=count_structures(section.pool, base),
            train=n_train,
            valid=_count_held(section.valid, n_train, base),
            test=_count_held(section.test, n_train, base),
        )
    return sizes


def forecast(
    study: StudyConfig, sizes: Mapping[str, PoolSize], probe: Probe, *, n_processes: int
) -> Forecast:
    """Predict what a study takes.

    A campaign reads its pool, fine-tunes in each round (several models for a committee),
    validates on the way, measures, and represents pool and labelled structures in each round
    after round 0. Campaigns go to the processes one after another, in the study's order.

    Args:
        study: The study.
        sizes: Of each pool.
        probe: What single steps take.
        n_processes: Processes that run at once, >= 1, each on a core of its own.

    Returns:
        Seconds, with ``SAFETY``.

    Raises:
        ArgumentError: n_processes < 1.
    """
    if n_processes < 1:
        raise ArgumentError(f"n_processes is {n_processes}; allowed are integers >= 1")
    # No seed makes a campaign longer or shorter.
    cells = list_cells(study.model_copy(update={"seeds": study.seeds[:1]}), Path(), Path())
    seconds: dict[tuple[str, str, int], float] = {}
    for cell in cells:
        each = SAFETY * _cell_seconds(cell, sizes[cell.key.pool], probe)
        for seed in study.seeds:
            seconds[cell.key.pool, cell.key.method, seed] = each
    free = [0.0] * n_processes
    for each in seconds.values():
        heapq.heapreplace(free, free[0] + each)
    n_updates = max(_most_updates(cell, sizes[cell.key.pool]) for cell in cells)
    return Forecast(max(free), seconds, n_updates)


def plan_budget(
    study: StudyConfig,
    sizes: Mapping[str, PoolSize],
    probe: Probe,
    *,
    seconds: float,
    n_processes: int,
) -> StudyConfig:
    """Make a study smaller until it is predicted to fit.

    In this order, each only as far as needed and to its limit before the next is touched:
    updates a round (to 200, and validations on
    the way in proportion, to 5); pools, of which every k-th structure stays (to 300 structures and
    10 for each label of the last round); rounds (to 6); seeds (to 2, then 1). When a later one
    has made it fit, the earlier ones are given back what is left.

    Args:
        study: The study.
        sizes: Of each pool, before it is thinned.
        probe: What single steps take.
        seconds: The budget, wall time, > 0.
        n_processes: Processes that run at once, >= 1.

    Returns:
        The study; ``changes`` says what was changed and the predicted time, also when even
        the smallest does not fit.

    Raises:
        ArgumentError: A number out of range.
    """
    if not seconds > 0:
        raise ArgumentError(f"the budget is {seconds} s; allowed is more than 0")
    plan = _Plan(study, sizes, probe, n_processes)
    before = plan.forecast([0, 0, 0, 0])
    chosen = plan.fit(seconds)
    after = plan.forecast(chosen)
    changes = [*study.changes, *plan.describe(chosen, before)]
    changes.append(_verdict(before.seconds, after.seconds, seconds, n_processes))
    content = plan.apply(chosen).model_dump()
    return check_study({**content, "changes": changes})


class _Plan:
    """The four quantities that are scaled, each a list of values from the full one down."""

    def __init__(
        self,
        study: StudyConfig,
        sizes: Mapping[str, PoolSize],
        probe: Probe,
        n_processes: int,
    ) -> None:
        self._study, self._sizes = study, sizes
        self._probe, self._n_processes = probe, n_processes
        self._labels = _labels_by_pool(study, sizes)
        most = forecast(study, sizes, probe, n_processes=n_processes).n_updates
        self._most, self._n_validations = most, _validations(study)
        top = (most - 1) // _UPDATE_STEP * _UPDATE_STEP
        own = study.finetune.get("max_updates")
        self.updates = [own, *range(top, MIN_UPDATES - 1, -_UPDATE_STEP)]
        fewest = min(study.rounds, MIN_ROUNDS)
        widest = max(self._stride(name, 10**9, fewest) for name in study.pools)
        self.strides = list(range(1, widest + 1))
        self.rounds = list(range(study.rounds, fewest - 1, -1))
        self.seeds = list(range(len(study.seeds), MIN_SEEDS - 1, -1))
        self._known: dict[tuple[int, ...], Forecast] = {}

    def fit(self, seconds: float) -> list[int]:
        """Return which value of each quantity is taken."""
        chosen = [0, 0, 0, 0]
        counts = [len(self.updates), len(self.strides), len(self.rounds), len(self.seeds)]
        if self.forecast(chosen).seconds <= seconds:
            return chosen
        for number, count in enumerate(counts):
            chosen[number] = self._first_fit(chosen, number, count, seconds)
            if self.forecast(chosen).seconds <= seconds:
                for earlier in range(number - 1, -1, -1):
                    chosen[earlier] = self._first_fit(chosen, earlier, counts[earlier], seconds)
                break
        return chosen

    def forecast(self, chosen: Sequence[int]) -> Forecast:
        """Predict what a choice takes."""
        key = tuple(chosen)
        if key not in self._known:
            study = self.apply(chosen, thin=False)
            strides = self._strides(chosen)
            sizes = {
                name: PoolSize(-(-size.pool // strides[name]), size.train, size.valid, size.test)
                for name, size in self._sizes.items()
            }
            found = forecast(study, sizes, self._probe, n_processes=self._n_processes)
            self._known[key] = found
        return self._known[key]

    def apply(self, chosen: Sequence[int], *, thin: bool = True) -> StudyConfig:
        """Return the study with a choice; without ``thin`` its pools stay as they are."""
        finetune = dict(self._study.finetune)
        if chosen[0]:
            finetune["max_updates"] = self.updates[chosen[0]]
            finetune["max_validations"] = self._validations(chosen)
        pools = dict(self._study.pools)
        if thin:
            for name, stride in self._strides(chosen).items():
                specs = [thin_spec(spec, stride) for spec in pools[name].pool]
                pools[name] = pools[name].model_copy(update={"pool": specs})
        return self._study.model_copy(
            update={
                "finetune": finetune,
                "pools": pools,
                "rounds": self.rounds[chosen[2]],
                "seeds": self._study.seeds[: self.seeds[chosen[3]]],
            }
        )

    def describe(self, chosen: Sequence[int], before: Forecast) -> list[str]:
        """Say in words what a choice changes."""
        lines = []
        if chosen[0]:
            lines.append(
                f"updates a round: at most {before.n_updates:,} → {self.updates[chosen[0]]:,}, "
                f"validated {self._n_validations} → {self._validations(chosen)} times"
            )
        for name, stride in self._strides(chosen).items():
            if stride > 1:
                n = self._sizes[name].pool
                lines.append(
                    f"pool {name}: {n:,} structures → {-(-n // stride):,}, one in {stride}"
                )
        if chosen[2]:
            lines.append(f"rounds: {self.rounds[0]} → {self.rounds[chosen[2]]}")
        if chosen[3]:
            kept = self._study.seeds[: self.seeds[chosen[3]]]
            lines.append(f"seeds: {self.seeds[0]} → {len(kept)} ({', '.join(map(str, kept))})")
        return lines

    def _validations(self, chosen: Sequence[int]) -> int:
        """Return the validations of a round: fewer in proportion to the updates."""
        part = (self.updates[chosen[0]] or self._most) / self._most
        fewest = min(MIN_VALIDATIONS, self._n_validations)
        return max(fewest, round(part * self._n_validations))

    def _first_fit(self, chosen: list[int], number: int, count: int, seconds: float) -> int:
        """Return the first value of one quantity that fits, or the last one."""

        def fits(value: int) -> bool:
            trial = [*chosen[:number], value, *chosen[number + 1 :]]
            return self.forecast(trial).seconds <= seconds

        return min(bisect_left(range(count), True, key=fits), count - 1)

    def _strides(self, chosen: Sequence[int]) -> dict[str, int]:
        wanted, rounds = self.strides[chosen[1]], self.rounds[chosen[2]]
        return {name: self._stride(name, wanted, rounds) for name in self._study.pools}

    def _stride(self, name: str, wanted: int, rounds: int) -> int:
        """Return how far a pool may be thinned, at most as far as wanted."""
        if any(has_slice(spec) for spec in self._study.pools[name].pool):
            return 1
        floor = max(MIN_POOL, MIN_POOL_PER_LABEL * self._labels[name](rounds))
        return max(1, min(wanted, self._sizes[name].pool // floor))


def _validations(study: StudyConfig) -> int:
    return int(study.finetune.get("max_validations", Recipe().max_validations))


def _labels_by_pool(
    study: StudyConfig, sizes: Mapping[str, PoolSize]
) -> dict[str, Callable[[int], int]]:
    """Return for each pool the labels after so many rounds, of the method that takes most."""
    found: dict[str, Callable[[int], int]] = {}
    for name, size in sizes.items():
        cells = [cell for cell in list_cells(study, Path(), Path()) if cell.key.pool == name]
        pairs = {
            (cell.config.selection.initial_size, cell.config.selection.batch_size) for cell in cells
        }

        def count(rounds: int, pairs: Any = pairs, n_train: int = size.train) -> int:
            return max(int(n_train + initial + rounds * batch) for initial, batch in pairs)

        found[name] = count
    return found


def _cell_seconds(cell: Cell, size: PoolSize, probe: Probe) -> float:
    config, rounds = cell.config, cell.n_rounds
    n_files = len(member_files(config))
    n_models = max(1, n_files + (config.selection.diversity != "shuffle") * (n_files > 0))
    key = selection_key(config.selection)
    total = probe.start_s + size.pool * probe.read_s
    for number in range(rounds):
        n_labels = _labels_after(config, size, number)
        total += n_models * _finetune_seconds(config, n_labels, size.valid, probe)
        total += (size.valid + size.test) * probe.predict_s
        total += size.pool * probe.read_s
        if number == 0:
            continue
        if key == "committee":
            total += n_files * size.pool * probe.predict_s
        elif key != "random":
            # The labelled structures have left the pool and are represented all the same.
            total += (size.pool + size.train) * probe.select_s[key]
    return total


def _finetune_seconds(config: CampaignConfig, n_labels: int, n_valid: int, probe: Probe) -> float:
    recipe = config.finetune.recipe()
    schedule = resolve_schedule(recipe, n_labels)
    n_validations = 1 + min(recipe.max_validations, schedule.n_epochs)
    update = _interpolate(probe.update_s, schedule.batch_size)
    validating = n_validations * n_valid * probe.validate_s
    return float(schedule.n_updates * update + validating)


def _interpolate(by_size: Mapping[int, float], size: int) -> float:
    """Return the seconds of a batch size, in proportion to the nearest one if not measured."""
    if size in by_size:
        return by_size[size]
    nearest = min(by_size, key=lambda known: abs(known - size))
    return by_size[nearest] * size / nearest


def _labels_after(config: CampaignConfig, size: PoolSize, number: int) -> int:
    selection = config.selection
    wanted = size.train + selection.initial_size + number * selection.batch_size
    return int(max(1, min(wanted, size.train + size.pool)))


def _most_updates(cell: Cell, size: PoolSize) -> int:
    recipe = cell.config.finetune.recipe()
    labels = [_labels_after(cell.config, size, number) for number in range(cell.n_rounds)]
    return max(int(resolve_schedule(recipe, n).n_updates) for n in labels)


def _count_held(section: HeldOut, n_train: int, base: Path) -> int:
    if section.from_pool is not None:
        return section.from_pool
    if section.fraction is not None:
        return round(section.fraction * n_train)
    return count_structures(section.files, base)


def has_slice(spec: str) -> bool:
    """Return whether a file or pattern ends in ``@slice``."""
    _, at, ending = spec.rpartition("@")
    return bool(at) and re.fullmatch(r"-?\d*(:-?\d*){0,2}", ending) is not None


def thin_spec(spec: str, stride: int) -> str:
    """Return a file or pattern of which every so many-th structure is taken."""
    return spec if stride == 1 else f"{spec}@::{stride}"


def _verdict(before: float, after: float, budget: float, n_processes: int) -> str:
    where = "1 process" if n_processes == 1 else f"{n_processes} processes"
    allowed = f"{format_duration(after)} on {where}, {format_duration(budget)} allowed"
    if after > budget:
        return (
            f"predicted time: {allowed}: it does not fit, and nothing is made smaller than this; "
            "leave out methods or pools, or allow more time"
        )
    if before == after:
        return f"predicted time: {allowed}; nothing was scaled"
    return f"predicted time: {allowed}; unscaled {format_duration(before)}"
