"""How long a study will take here, and how it is made smaller until it fits a budget.

Single steps are measured on a few structures; the planning is arithmetic on their times.
"""

from __future__ import annotations

import heapq
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms

from labelwise.campaign.config import CampaignConfig, HeldOut
from labelwise.campaign.stages.finetune import member_files
from labelwise.errors import ArgumentError
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.loop import EpochRecord
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential
from labelwise.runtime.cores import torch_threads
from labelwise.studies.comparison.adjusting import adjust_study
from labelwise.studies.comparison.costs import StudySample, find_costs
from labelwise.studies.comparison.presets import count_structures
from labelwise.studies.comparison.study import Cell, StudyConfig, list_cells

#: As far as a study is scaled; beyond, differences between methods drown.
MIN_UPDATES, MIN_ROUNDS, MIN_SEEDS = 200, 6, 1
#: Predicted times are multiplied by this: processes that run at once slow each other down.
SAFETY = 1.15
_UPDATE_STEP = 50
_N_UPDATES = 12


@dataclass(frozen=True)
class Probe:
    """What single steps take on this machine, in one process.

    Attributes:
        update_s: Batch size to seconds of one update, s.
        select_s: Method to seconds a candidate, s.
        predict_s: Energies and forces of one structure, s.
    """

    update_s: Mapping[int, float]
    select_s: Mapping[str, float]
    predict_s: float


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


def format_duration(seconds: float) -> str:
    """Return a duration in words, to two or three digits: ``42 s``, ``55 min``, ``3.2 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def scale_to_budget(
    study: StudyConfig,
    folder: Path,
    base: Path,
    *,
    seconds: float,
    n_processes: int,
    probe: Probe | None = None,
) -> StudyConfig:
    """Measure what a study will take and make it smaller until it fits, see ``plan_budget``.

    Args:
        study: The study.
        folder: Its folder, where costs of methods are kept.
        base: Where its relative paths begin.
        seconds: The budget, wall time, > 0.
        n_processes: Processes that run at once, >= 1, each on a core of its own.
        probe: What single steps take; None to measure it.

    Raises:
        ArgumentError: A number out of range.
        LabelError: A structure without labels.
        LabelwiseError: A file that cannot be read, or a model that cannot be used.
    """
    sizes = count_sets(study, base)
    if probe is None:
        probe = measure_probe(study, folder, base, sizes)
    return plan_budget(study, sizes, probe, seconds=seconds, n_processes=n_processes)


def measure_probe(
    study: StudyConfig, folder: Path, base: Path, sizes: Mapping[str, PoolSize]
) -> Probe:
    """Measure on structures from all over the pools what the steps of a study take.

    One thread is used, as in the study's processes, and processor time is taken on a CPU, so
    that another program at work beside it does not count.
    """
    cells = list_cells(study, folder, base)
    sample = StudySample(study, base)
    batch_sizes = {b for cell in cells for b in _batch_sizes(cell.config, sizes[cell.key.pool])}
    measure: Callable[..., Any] = partial(evaluate, **_keys_of(study))
    with torch_threads(1):
        potential = sample.potential
        clock = time.process_time if potential.device.type == "cpu" else time.perf_counter
        costs = find_costs(cells, folder, sample)
        structures = [atoms for pool in study.pools for atoms in sample.structures(pool)]
        measure(potential, structures[:2])
        begin = clock()
        measure(potential, structures)
        predict_s = (clock() - begin) / len(structures)
        return Probe(
            {b: _time_update(study, potential, structures, b, clock) for b in sorted(batch_sizes)},
            {cost.method: cost.seconds_per_structure for cost in costs},
            predict_s,
        )


def _time_update(
    study: StudyConfig,
    potential: Potential,
    structures: Sequence[Atoms],
    batch_size: int,
    clock: Callable[[], float],
) -> float:
    """Return seconds of an update; an epoch beforehand is not counted."""
    n_train = batch_size * max(2, _N_UPDATES // batch_size)
    train = [structures[i % len(structures)] for i in range(n_train)]
    marks: list[tuple[int, float]] = []

    def note(record: EpochRecord) -> None:
        marks.append((record.updates, clock()))

    recipe = Recipe(batch_size=batch_size, epochs=2, max_validations=2)
    finetune(
        potential,
        train,
        [],
        recipe,
        seed=0,
        **_keys_of(study),
        progress=note,
    )
    (n_warm, warm), (n_end, end) = marks[-2:]
    return (end - warm) / (n_end - n_warm)


def _keys_of(study: StudyConfig) -> dict[str, Any]:
    return {key: getattr(study, key) for key in ("energy_key", "forces_key", "stress_key")}


def _batch_sizes(config: CampaignConfig, size: PoolSize) -> set[int]:
    """Return the batch sizes that a campaign's recipe comes to."""
    recipe = config.finetune.recipe()
    rounds = range((config.stop.rounds or 0) + 1)
    return {resolve_schedule(recipe, _labels_after(config, size, n)).batch_size for n in rounds}


def count_sets(study: StudyConfig, base: Path) -> dict[str, PoolSize]:
    """Count the structures of a study's pools and of their sets."""
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
    """Predict what a study takes, with ``SAFETY``.

    A campaign fine-tunes in each round (several models for a committee), validates on the way,
    measures, and represents pool and labelled structures in each round
    after round 0. Campaigns go to the processes one after another, in the study's order.

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
    """Make a study smaller until it is predicted to fit into seconds of wall time.

    In this order, each only as far as needed and to its limit before the next is touched:
    updates a round (to 200, see ``adjust_study``), rounds (to 6), seeds (to 1). When a later one
    has made it fit, the updates are given back what is left.

    Returns:
        The study; ``changes`` says what was changed and the predicted time, also when even
        the smallest does not fit.

    Raises:
        ArgumentError: A number out of range.
    """
    if not seconds > 0:
        raise ArgumentError(f"the budget is {seconds} s; allowed is more than 0")

    def predict(step: _Step) -> float:
        return forecast(_scale(study, step), sizes, probe, n_processes=n_processes).seconds

    def first_fit(steps: Sequence[_Step]) -> _Step:
        place = bisect_left(steps, True, key=lambda step: predict(step) <= seconds)
        return steps[min(place, len(steps) - 1)]

    whole = _Step(None, study.rounds, len(study.seeds))
    most = forecast(study, sizes, probe, n_processes=n_processes).n_updates
    top = (most - 1) // _UPDATE_STEP * _UPDATE_STEP
    updates = [None, *range(top, MIN_UPDATES - 1, -_UPDATE_STEP)]
    rounds = range(study.rounds, min(study.rounds, MIN_ROUNDS) - 1, -1)
    seeds = range(len(study.seeds), MIN_SEEDS - 1, -1)
    chosen = first_fit(
        [
            *(whole._replace(updates=each) for each in updates),
            *(_Step(updates[-1], each, seeds[0]) for each in rounds[1:]),
            *(_Step(updates[-1], rounds[-1], each) for each in seeds[1:]),
        ]
    )
    if predict(chosen) <= seconds:
        chosen = first_fit([chosen._replace(updates=each) for each in updates])
    verdict = _verdict(predict(whole), predict(chosen), seconds, n_processes)
    scaled = _scale(study, chosen)
    return scaled.model_copy(update={"changes": [*scaled.changes, verdict]})


class _Step(NamedTuple):
    """How far a study is scaled; updates None for its own."""

    updates: int | None
    rounds: int
    seeds: int


def _scale(study: StudyConfig, step: _Step) -> StudyConfig:
    """Return a study as scaled, which it says."""
    scaled = adjust_study(study, n_updates=step.updates)
    changes, seeds = list(scaled.changes), study.seeds[: step.seeds]
    if step.rounds != study.rounds:
        changes.append(f"rounds: {study.rounds} → {step.rounds}")
    if seeds != study.seeds:
        kept = ", ".join(map(str, seeds))
        changes.append(f"seeds: {len(study.seeds)} → {len(seeds)} ({kept})")
    changed = {"rounds": step.rounds, "seeds": seeds, "changes": changes}
    return scaled.model_copy(update=changed)


def _cell_seconds(cell: Cell, size: PoolSize, probe: Probe) -> float:
    config, rounds = cell.config, cell.n_rounds
    n_files = len(member_files(config))
    n_models = max(1, n_files + (config.selection.diversity != "shuffle") * (n_files > 0))
    total = 0.0
    for number in range(rounds):
        n_labels = _labels_after(config, size, number)
        total += n_models * _finetune_seconds(config, n_labels, size.valid, probe)
        total += (size.valid + size.test) * probe.predict_s
        if number == 0:
            continue
        # The labelled structures have left the pool and are represented all the same.
        total += (size.pool + size.train) * probe.select_s[cell.key.method]
    return total


def _finetune_seconds(config: CampaignConfig, n_labels: int, n_valid: int, probe: Probe) -> float:
    recipe = config.finetune.recipe()
    schedule = resolve_schedule(recipe, n_labels)
    n_validations = 1 + min(recipe.max_validations, schedule.n_epochs)
    update = _interpolate(probe.update_s, schedule.batch_size)
    validating = n_validations * n_valid * probe.predict_s
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


def _verdict(before: float, after: float, budget: float, n_processes: int) -> str:
    where = "1 process" if n_processes == 1 else f"{n_processes} processes"
    allowed = f"{format_duration(after)} on {where}, {format_duration(budget)} allowed"
    if after > budget:
        return (
            f"predicted time: {allowed}: it does not fit, and nothing is made smaller than this; "
            "leave out methods or pools, thin pools (--thin), or allow more time"
        )
    if before == after:
        return f"predicted time: {allowed}; nothing was scaled"
    return f"predicted time: {allowed}; unscaled {format_duration(before)}"
