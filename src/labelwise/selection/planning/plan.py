"""From a pool and a model to a plan: look, try, and estimate."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labelwise.errors import ArgumentError
from labelwise.features.fill import Filler, make_screen
from labelwise.features.frames import FrameTable
from labelwise.features.representations import feature_blocks, feature_size
from labelwise.features.store.memory import MemoryRows
from labelwise.potentials.base import Potential
from labelwise.potentials.batching import DEFAULT_BATCH_ATOMS
from labelwise.runtime.cores import usable_cores
from labelwise.runtime.memory import peak_resident_bytes, usable_memory_bytes
from labelwise.runtime.timing import Stopwatch
from labelwise.selection.planning.estimate import (
    Estimate,
    Machine,
    Rates,
    StageEstimate,
    Trial,
    Workload,
    estimate_run,
)
from labelwise.selection.planning.settings import RunSettings
from labelwise.selection.planning.survey import Survey, ratio_error, survey_files
from labelwise.selection.rules import get_rule
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import Frame, Source

#: Parts of the time that the steps of a trial get.
_SURVEY, _TRAIN, _TRIAL = 0.2, 0.1, 0.7
_WARM_UP_PART = 4
#: The relative error of a rate that was noted too few times.
_UNKNOWN_ERROR = 0.5
_LEAST_MARKS = 3


@dataclass(frozen=True)
class LargestStructure:
    """The structure of most atoms among those that were looked at.

    Attributes:
        source: Its file; the frame's number counts within the sample.
        n_atoms: Its atoms.
        memory_bytes: What its representation takes at the peak; None where no model is run.
        why_too_large: Why it would be set aside; None if it would not.
    """

    source: Source
    n_atoms: int
    memory_bytes: int | None
    why_too_large: str | None


@dataclass(frozen=True)
class Plan:
    """What a selection will need, and what it was estimated from.

    Attributes:
        estimate: Times, sizes and the largest pools.
        rates: What was measured.
        survey: What the pool looks like.
        probe_s: What the trial took, s.
        largest: The largest structure that was looked at.
    """

    estimate: Estimate
    rates: Rates
    survey: Survey
    probe_s: float
    largest: LargestStructure

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data, with the unit in the name of every number that has one."""
        found, trial = self.estimate, self.rates.trial
        return {
            "pool_structures": found.workload.n_structures,
            "atoms_per_structure": found.workload.atoms_per_structure,
            "pool_count_relative_error": found.workload.count_error,
            "train_structures": found.workload.n_train,
            "stages": [_describe(stage) for stage in found.stages],
            "total": _describe(found.total),
            "peak_memory_bytes": found.peak_memory_bytes,
            "least_memory_bytes": found.least_memory_bytes,
            "memory_bound_bytes": found.memory_bound_bytes,
            "store_bytes": found.store_bytes,
            "free_bytes": found.free_bytes,
            "fits": found.fits,
            "cost": found.cost,
            "largest_pool_structures": asdict(found.largest),
            "workload": asdict(found.workload),
            "run": asdict(found.run),
            "largest_structure": {**asdict(self.largest), "source": str(self.largest.source)},
            "probe": {
                "seconds": self.probe_s,
                "structures_read": len(self.survey.frames),
                "is_spread_over_the_pool": self.survey.is_spread,
                "structures_represented": trial.n_structures,
                "represent_structures_per_second": trial.structures_per_second,
                "read_s_per_atom": self.rates.read_s_per_atom,
                "split_s_per_structure": self.rates.split_s_per_structure,
                **asdict(trial),
                **asdict(self.rates.machine),
            },
        }


def make_plan(
    pool: Sequence[str],
    settings: AcquisitionSettings,
    *,
    train: Sequence[str] = (),
    potential: Potential | None,
    run: RunSettings,
    folder: Path,
    load_s: float = 0.0,
    seconds: float = 10.0,
    n_structures: int | None = None,
) -> Plan:
    """Try a selection for some seconds and estimate what all of it will need.

    Args:
        pool: Files of the pool.
        settings: As for the selection.
        train: Files of labelled structures.
        potential: The model, or None where none is needed.
        run: Where and how the selection will run.
        folder: Where the feature store will be.
        load_s: What loading the model took, s.
        seconds: How long to try, s.
        n_structures: Plan for a pool of so many structures like those of ``pool``; None for
            the pool itself.

    Raises:
        ArgumentError: An argument is out of range, the rows are not dense, the speed of the
            GPUs is not known, or the pool can neither be counted in the time nor was its size
            given.
        ReadError: A file is missing or damaged where it was looked at.
        PotentialError: The model fails.
    """
    check_plannable(settings)
    run.check("cpu" if potential is None else str(potential.device))
    if not seconds > 0.0:
        raise ArgumentError(f"seconds is {seconds}; it must be above 0")
    began = time.perf_counter()
    survey = survey_files(pool, seconds=_SURVEY * seconds, seed=settings.seed)
    labelled = survey_files(train, seconds=_TRAIN * seconds) if train else None
    work = _workload(survey, labelled, settings, n_structures)
    work.check()
    rates = Rates(
        read_s_per_atom=survey.read_s_per_atom,
        split_s_per_structure=survey.split_s_per_structure,
        load_s=load_s,
        trial=run_trial(survey.frames, settings, potential, seconds=_TRIAL * seconds),
        machine=describe_machine(folder),
    )
    largest = find_largest_structure(survey.frames, settings, potential, run.memory_bytes)
    estimate = estimate_run(work, run, rates)
    return Plan(estimate, rates, survey, time.perf_counter() - began, largest)


def check_plannable(settings: AcquisitionSettings) -> None:
    """Raise unless the rows of a selection are dense, one a structure.

    Raises:
        ArgumentError: They are bits, sparse, or sets of rows.
    """
    representation = settings.make_representation()
    is_sparse = representation.column_block is not None
    is_joint = get_rule(settings.rule).takes == "row-sets"
    if is_joint or representation.kernel != "linear" or is_sparse:
        name = f"rule {settings.rule}" if is_joint else representation.name
        raise ArgumentError(
            f"{name}: a plan can be made for one dense row a structure only (ntk-e, ntk-f, "
            "ntk-ef, activation, ntk-random, activation-random, random); for others time "
            "'labelwise select' on a part of the pool"
        )


def run_trial(
    frames: Sequence[Frame],
    settings: AcquisitionSettings,
    potential: Potential | None,
    *,
    seconds: float,
) -> Trial:
    """Screen and represent structures of a sample until the time is over, as a selection does.

    A first, smaller batch warms up and is not counted.

    Args:
        frames: The sample, in any order, at least one.
        settings: As for the selection.
        potential: The model, if one is needed.
        seconds: How long to take, about: batches are finished.

    Raises:
        ArgumentError: There are no structures, or the rows are not dense.
        PotentialError: The model fails on a structure.
    """
    check_plannable(settings)
    if not frames:
        raise ArgumentError("the pool holds no structures; give one to plan for")
    deadline = time.perf_counter() + seconds
    has_rows = settings.needs_features
    if has_rows:
        n_first = _count_warm_up(frames, settings, potential)
        _represent(frames[:n_first], settings, potential, math.inf)
        frames = frames[n_first:] if n_first < len(frames) else frames
    table, spent, marks = _represent(frames, settings, potential, deadline)
    sizes, usable = np.array([len(frame.atoms) for frame in frames[: len(table)]]), table.usable()
    n_atoms = int(sizes[usable].sum())
    n_done, done_s = np.diff(np.array([(0, 0.0), *marks]), axis=0).T
    is_told = len(marks) >= _LEAST_MARKS
    representation = settings.make_representation()
    return Trial(
        n_structures=int(usable.sum()),
        n_atoms=n_atoms,
        kept_fraction=float(usable.mean()),
        screen_s_per_atom=spent["screen"] / max(1, int(sizes.sum())),
        represent_s_per_atom=spent.get("represent pool", 0.0) / max(1, n_atoms),
        relative_error=(ratio_error(done_s, n_done) if is_told else _UNKNOWN_ERROR)
        if has_rows
        else 0.0,
        width=feature_size(representation, potential) if has_rows else 0,
        n_blocks=len(feature_blocks(representation, potential)) if has_rows else 0,
        peak_memory_bytes=peak_resident_bytes(),
        device="cpu" if potential is None else str(potential.device),
        device_memory_bytes=int(torch.cuda.max_memory_allocated(potential.device))
        if potential is not None and potential.device.type == "cuda"
        else None,
    )


def _represent(
    frames: Sequence[Frame],
    settings: AcquisitionSettings,
    potential: Potential | None,
    deadline: float,
) -> tuple[FrameTable, dict[str, float], list[tuple[int, float]]]:
    """Fill rows in memory until the time is over, with at least one frame.

    Returns:
        The frames, seconds by stage, and as it went on the frames done and the seconds spent on
        their rows.
    """
    watch = Stopwatch()
    watch.count("screen", 0)
    marks: list[tuple[int, float]] = []

    def spent() -> dict[str, float]:
        return {stage.name: stage.seconds for stage in watch.stages()}

    def note(_stage: str, n_done: int, _n_total: int | None) -> None:
        marks.append((n_done, spent().get("represent pool", 0.0)))

    def in_time() -> Iterator[Frame]:
        for frame in frames:
            yield frame
            if time.perf_counter() > deadline:
                return

    rows = None
    if settings.needs_features:
        rows = MemoryRows(settings.make_representation(), potential)
    filler = Filler(settings.make_recipe(), rows, potential, watch=watch, progress=note)
    return filler.fill(in_time(), "pool"), spent(), marks


def _count_warm_up(
    frames: Sequence[Frame], settings: AcquisitionSettings, potential: Potential | None
) -> int:
    """Return how many structures are about a quarter of a batch."""
    device = "cpu" if potential is None else potential.device.type
    limit = settings.batch_atoms
    limit = DEFAULT_BATCH_ATOMS.get(device, 256) if limit is None else limit
    sizes = np.cumsum([len(frame.atoms) for frame in frames])
    return 1 + int(np.searchsorted(sizes, limit // _WARM_UP_PART))


def describe_machine(folder: Path) -> Machine:
    """Return what there is here.

    Args:
        folder: Where the feature store would be; it need not exist yet.
    """
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return Machine(
        n_cores=usable_cores(),
        load_average=os.getloadavg()[0],
        memory_bytes=usable_memory_bytes(),
        free_bytes=shutil.disk_usage(folder).free,
    )


def find_largest_structure(
    frames: Sequence[Frame],
    settings: AcquisitionSettings,
    potential: Potential | None,
    memory_bytes: int | None = None,
) -> LargestStructure:
    """Return the structure of most atoms and what it takes; frames, at least one, are a sample."""
    frame = max(frames, key=lambda each: len(each.atoms))
    limit = settings.make_recipe(memory_bytes).make_size_limit(potential)
    is_sound = make_screen(None).check_content(frame) is None
    return LargestStructure(
        source=frame.source,
        n_atoms=len(frame.atoms),
        memory_bytes=limit.estimate(frame.atoms) if is_sound else None,
        why_too_large=limit.find(frame.atoms) if is_sound else None,
    )


def _workload(
    survey: Survey,
    labelled: Survey | None,
    settings: AcquisitionSettings,
    n_structures: int | None,
) -> Workload:
    n_found = survey.n_structures if n_structures is None else n_structures
    if n_found is None:
        raise ArgumentError(
            "the pool could not be counted in the time there is, as its format cannot be "
            "entered in the middle: say how many structures it holds by --n-structures"
        )
    n_train = 0 if labelled is None else labelled.n_structures
    if n_train is None:
        raise ArgumentError(
            "the labelled structures could not be counted in the time there is: give a longer "
            "--seconds"
        )
    return Workload(
        n_structures=n_found,
        atoms_per_structure=survey.atoms_per_structure,
        n_select=settings.n_select,
        rule=settings.rule,
        shortlist=settings.shortlist,
        n_train=n_train,
        train_atoms_per_structure=0.0 if labelled is None else labelled.atoms_per_structure,
        count_error=survey.count_error if n_structures is None else 0.0,
    )


def _describe(stage: StageEstimate) -> dict[str, Any]:
    return {
        "name": stage.name,
        "seconds": stage.seconds,
        "low_seconds": stage.low_s,
        "high_seconds": stage.high_s,
    }
