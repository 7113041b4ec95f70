"""How long the steps of a study take on this machine, measured on a few structures."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from labelwise.campaign.config import CampaignConfig, SelectionSection
from labelwise.campaign.inputs import find_model
from labelwise.errors import ArgumentError, ReadError
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.loop import EpochRecord
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential, load_potential
from labelwise.selection.acquire import acquire
from labelwise.structures import Frame, Source
from labelwise.structures.reading import expand_specs, frames_of, read_sources
from labelwise.studies.comparison.budget_plan import (
    PoolSize,
    Probe,
    count_sets,
    plan_budget,
    selection_key,
)
from labelwise.studies.comparison.study import Cell, StudyConfig, list_cells

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
N_STRUCTURES = 24
_N_LABELLED = 4
_N_UPDATES = 12


def parse_duration(text: str) -> float:
    """Read a duration such as ``45m``, ``2h``, ``90s``, ``1h30m`` or ``0.5h``.

    Args:
        text: Numbers with h, m and s, in this order, each at most once.

    Returns:
        Seconds, above 0.

    Raises:
        ArgumentError: It is none, or zero.
    """
    found = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    parts = found.groups() if found else (None, None, None)
    seconds = sum(
        float(part) * unit for part, unit in zip(parts, _UNITS.values(), strict=True) if part
    )
    if not seconds > 0:
        raise ArgumentError(
            f"the duration is {text!r}; allowed are hours, minutes and seconds above 0, such as "
            "45m, 2h, 90s, 1h30m or 0.5h"
        )
    return seconds


def scale_to_budget(
    study: StudyConfig,
    base: Path,
    *,
    seconds: float,
    n_processes: int,
    probe: Probe | None = None,
) -> StudyConfig:
    """Measure what a study will take and make it smaller until it fits.

    Args:
        study: The study.
        base: Where its relative paths begin.
        seconds: The budget, wall time, > 0.
        n_processes: Processes that run at once, >= 1, each on a core of its own.
        probe: What single steps take; None to measure it.

    Returns:
        The study, see ``plan_budget``.

    Raises:
        ArgumentError: A number out of range.
        ReadError: A file that cannot be read.
        LabelError: A structure without labels.
        PotentialError: The model cannot be loaded or used.
        MissingDependencyError: A representation's package is not installed.
    """
    sizes = count_sets(study, base)
    if probe is None:
        probe = measure_probe(study, base, sizes=sizes)
    return plan_budget(study, sizes, probe, seconds=seconds, n_processes=n_processes)


def measure_probe(
    study: StudyConfig,
    base: Path,
    *,
    sizes: dict[str, PoolSize] | None = None,
    n_structures: int = N_STRUCTURES,
) -> Probe:
    """Measure on structures from all over the pools what the steps of a study take.

    One thread is used, as in the study's processes, and processor time is taken on a CPU, so
    that another program at work beside it does not count.

    Args:
        study: The study.
        base: Where its relative paths begin.
        sizes: Of the pools; None to count them.
        n_structures: Structures to measure on, >= 8.

    Returns:
        Seconds of each step.

    Raises:
        ReadError: A file that cannot be read, or no structures.
        LabelError: A structure without labels.
        PotentialError: The model cannot be loaded or used.
        MissingDependencyError: A representation's package is not installed.
    """
    sizes = count_sets(study, base) if sizes is None else sizes
    cells = list_cells(study, base / "probe", base)
    frames = _spread(study, base, n_structures)
    config = study.model
    with _single_thread():
        potential = load_potential(
            find_model(base, config.path),
            device=config.device,
            dtype=config.dtype,
            head=config.head,
            trust=config.trust,
        )
        clock = time.process_time if potential.device.type == "cpu" else time.perf_counter
        return Probe(
            update_s=_measure_updates(study, cells, sizes, potential, frames, clock),
            select_s=_measure_selections(cells, potential, frames, clock),
            predict_s=_measure_prediction(study, potential, frames, clock),
        )


def _measure_updates(
    study: StudyConfig,
    cells: Sequence[Cell],
    sizes: dict[str, PoolSize],
    potential: Potential,
    frames: list[Frame],
    clock: Callable[[], float],
) -> dict[int, float]:
    """Return seconds of an update by batch size; an epoch beforehand is not counted."""
    found = {}
    for size in sorted(
        {b for cell in cells for b in _batch_sizes(cell.config, sizes[cell.key.pool])}
    ):
        n_train = size * max(2, _N_UPDATES // size)
        train = [frames[i % len(frames)].atoms for i in range(n_train)]
        marks: list[tuple[int, float]] = []

        def note(record: EpochRecord, marks: list[tuple[int, float]] = marks) -> None:
            marks.append((record.updates, clock()))

        recipe = Recipe(batch_size=size, epochs=2, max_validations=2)
        finetune(
            potential,
            train,
            [],
            recipe,
            seed=0,
            energy_key=study.energy_key,
            forces_key=study.forces_key,
            progress=note,
        )
        (n_warm, warm), (n_end, end) = marks[-2:]
        found[size] = (end - warm) / (n_end - n_warm)
    return found


def _batch_sizes(config: CampaignConfig, size: PoolSize) -> set[int]:
    """Return the batch sizes that a campaign's recipe comes to."""
    recipe, selection = config.finetune.recipe(), config.selection
    begin = max(1, size.train + selection.initial_size)
    rounds = config.stop.rounds or 0
    counts = range(begin, begin + rounds * selection.batch_size + 1, selection.batch_size)
    return {resolve_schedule(recipe, n).batch_size for n in counts}


def _measure_selections(
    cells: Sequence[Cell],
    potential: Potential,
    frames: list[Frame],
    clock: Callable[[], float],
) -> dict[str, float]:
    """Return seconds a candidate by what a selection has to compute."""
    kinds: dict[str, SelectionSection] = {}
    for cell in cells:
        kinds.setdefault(selection_key(cell.config.selection), cell.config.selection)
    found = {}
    labelled, pool = frames[:_N_LABELLED], frames[_N_LABELLED:]
    for key, selection in kinds.items():
        if key in ("random", "committee"):
            continue
        n_select = min(selection.batch_size, len(pool) // 2)
        settings = replace(selection.settings(n_select, seed=0), shortlist=None)
        acquire(pool[:2], labelled, replace(settings, n_select=1), potential=potential)
        begin = clock()
        acquire(pool, labelled, settings, potential=potential)
        found[key] = (clock() - begin) / len(frames)
    return found


def _measure_prediction(
    study: StudyConfig, potential: Potential, frames: list[Frame], clock: Callable[[], float]
) -> float:
    structures = [frame.atoms for frame in frames]
    energy_key, forces_key = study.energy_key, study.forces_key
    evaluate(potential, structures[:2], energy_key=energy_key, forces_key=forces_key)
    begin = clock()
    evaluate(potential, structures, energy_key=energy_key, forces_key=forces_key)
    return (clock() - begin) / len(frames)


def _spread(study: StudyConfig, base: Path, n_wanted: int) -> list[Frame]:
    """Read structures from all over the pools, in turn from each."""
    places: list[Source] = []
    specs = [str(base / spec) for section in study.pools.values() for spec in section.pool]
    parts = expand_specs(list(dict.fromkeys(specs)))
    for part in parts:
        numbers = frames_of(part)
        n_here = -(-n_wanted // len(parts))
        step = max(1, len(numbers) // n_here)
        places += [Source(str(part.path), i) for i in list(numbers)[::step][:n_here]]
    if not places:
        raise ReadError("the pools hold no structures")
    step = max(1, len(places) // n_wanted)
    chosen = places[::step][:n_wanted]
    # Sources that are neighbours in a file look alike; the labelled ones shall not.
    chosen = chosen[::2] + chosen[1::2]
    return [
        Frame(atoms, source, i)
        for i, (atoms, source) in enumerate(zip(read_sources(chosen), chosen, strict=True))
    ]


@contextmanager
def _single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
