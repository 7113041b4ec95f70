"""How fast a model and a representation take the structures of a sample."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32

from labelwise.errors import ArgumentError
from labelwise.features.representations import (
    feature_blocks,
    feature_size,
    is_finite,
    normalise_rows,
)
from labelwise.potentials.base import Potential
from labelwise.potentials.batching import DEFAULT_BATCH_ATOMS
from labelwise.runtime.memory import peak_resident_bytes
from labelwise.runtime.timing import Stopwatch, ignore_progress
from labelwise.selection.choosing import FeatureChooser
from labelwise.selection.road import Road
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import Frame

_WARM_UP_PART = 4
_GRAPH_PART = 0.1


@dataclass(frozen=True)
class RoadRates:
    """What it took to screen and represent a sample.

    Attributes:
        n_structures: Structures that were represented.
        n_atoms: Their atoms.
        kept_fraction: Part of the structures read that passed the screen.
        screen_s_per_atom: Seconds to screen, by atom read.
        represent_s_per_atom: Seconds to represent, neighbour lists included, by atom.
        graph_s_per_atom: Seconds for the neighbour lists and for joining batches, of that.
        relative_error: Standard error of ``represent_s_per_atom``, from how batches differ.
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
    graph_s_per_atom: float
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


class _RowSampler(FeatureChooser):
    """Takes rows as a selection would, and remembers when each chunk came."""

    def __init__(self, settings: AcquisitionSettings, potential: Potential | None) -> None:
        super().__init__(settings, potential)
        self.chunks: list[np.ndarray] = []
        self.arrivals = [time.perf_counter()]

    def keep(self, role: str, chunk: Any) -> Bool[np.ndarray, " b"]:  # noqa: ARG002
        """See ``Chooser.keep``."""
        self.chunks.append(chunk)
        self.arrivals.append(time.perf_counter())
        return is_finite(chunk)


def check_plannable(settings: AcquisitionSettings) -> None:
    """Raise unless the rows of a selection are dense, one a structure.

    Raises:
        ArgumentError: They are bits, sparse, or sets of rows.
    """
    representation = settings.make_representation()
    is_sparse = getattr(representation, "column_block", None) is not None
    if settings.rule == "joint-pv" or representation.kernel != "linear" or is_sparse:
        name = "rule joint-pv" if settings.rule == "joint-pv" else representation.name
        raise ArgumentError(
            f"{name}: a plan can be made for one dense row a structure only (ntk-e, ntk-f, "
            "ntk-ef, activation, ntk-random, activation-random, random); for others time "
            "'labelwise select' on a part of the pool"
        )


def probe_road(
    frames: Sequence[Frame],
    settings: AcquisitionSettings,
    potential: Potential | None,
    *,
    seconds: float,
) -> tuple[RoadRates, Float32[np.ndarray, "n d"]]:
    """Screen and represent structures of a sample until the time is over.

    A first, smaller batch warms up and is not counted.

    Args:
        frames: The sample, in any order, at least one.
        settings: As for the selection.
        potential: The model, if one is needed.
        seconds: How long to take, about: batches are finished.

    Returns:
        The rates, and the rows that were made, normalised; (0, d) where none were needed.

    Raises:
        ArgumentError: There are no structures, or the rows are not dense.
        PotentialError: The model fails on a structure.
    """
    check_plannable(settings)
    if not frames:
        raise ArgumentError("the pool holds no structures; give one to plan for")
    deadline = time.perf_counter() + seconds
    n_warm_up = _warm_up(frames, settings, potential) if settings.needs_features else 0
    counted = frames[n_warm_up:] if n_warm_up < len(frames) else frames
    sampler = _RowSampler(settings, potential) if settings.needs_features else None
    road = Road(settings, potential, ignore_progress)
    kept = road.load("pool", _until(counted, deadline - _GRAPH_PART * seconds), sampler)
    atoms_of = {frame.index: len(frame.atoms) for frame in counted}
    n_atoms = sum(atoms_of[index] for index in kept.indices)
    n_atoms_read = n_atoms + sum(atoms_of[item.index] for item in kept.screened)
    representation = settings.make_representation()
    rates = RoadRates(
        n_structures=len(kept.sources),
        n_atoms=n_atoms,
        kept_fraction=len(kept.sources) / max(1, kept.n_read),
        screen_s_per_atom=_seconds(road.watch, "screen") / max(1, n_atoms_read),
        represent_s_per_atom=_seconds(road.watch, "represent pool") / max(1, n_atoms),
        graph_s_per_atom=_time_graphs(counted, set(kept.indices), potential, _GRAPH_PART * seconds)
        if sampler is not None
        else 0.0,
        relative_error=0.0 if sampler is None else _relative_error(sampler),
        width=0 if sampler is None else feature_size(representation, potential),
        n_blocks=0 if sampler is None else len(feature_blocks(representation, potential)),
        peak_memory_bytes=peak_resident_bytes(),
        device="cpu" if potential is None else str(potential.device),
        device_memory_bytes=_device_peak(potential),
    )
    return rates, _rows(sampler, settings, potential, rates.width)


def _warm_up(
    frames: Sequence[Frame], settings: AcquisitionSettings, potential: Potential | None
) -> int:
    """Represent about a quarter of a batch; return how many structures that took."""
    device = "cpu" if potential is None else potential.device.type
    limit = settings.batch_atoms
    limit = DEFAULT_BATCH_ATOMS.get(device, 256) if limit is None else limit
    sizes = np.cumsum([len(frame.atoms) for frame in frames])
    n_first = 1 + int(np.searchsorted(sizes, limit // _WARM_UP_PART))
    road = Road(settings, potential, ignore_progress)
    road.load("pool", frames[:n_first], _RowSampler(settings, potential))
    return n_first


def _until(frames: Sequence[Frame], deadline: float) -> Iterator[Frame]:
    """Give structures out until the time is over, at least one."""
    for frame in frames:
        yield frame
        if time.perf_counter() > deadline:
            return


def _seconds(watch: Stopwatch, name: str) -> float:
    return next(stage.seconds for stage in watch.stages() if stage.name == name)


def _relative_error(sampler: _RowSampler) -> float:
    """Return the standard error of the mean time of a row, from the chunks; 0 for fewer than 3."""
    sizes = np.array([len(chunk) for chunk in sampler.chunks], dtype=np.float64)
    if len(sizes) < 3:
        return 0.0
    seconds = np.diff(sampler.arrivals)
    rate = seconds.sum() / sizes.sum()
    residuals = seconds - rate * sizes
    k = len(sizes)
    return math.sqrt(float(np.square(residuals).sum()) / (k * (k - 1))) / float(seconds.mean())


def _time_graphs(
    frames: Sequence[Frame], kept: set[int], potential: Potential | None, seconds: float
) -> float:
    """Return the seconds of neighbour lists and of joining batches, by atom."""
    chosen = [frame.atoms for frame in frames if frame.index in kept]
    if potential is None or not chosen:
        return 0.0
    began = time.perf_counter()
    graphs = []
    for atoms in chosen:
        graphs.append(potential.prepare(atoms))
        if time.perf_counter() > began + seconds:
            break
    potential.collate(graphs)
    return (time.perf_counter() - began) / sum(graph.n_atoms for graph in graphs)


def _device_peak(potential: Potential | None) -> int | None:
    if potential is None or potential.device.type != "cuda":
        return None
    return int(torch.cuda.max_memory_allocated(potential.device))


def _rows(
    sampler: _RowSampler | None,
    settings: AcquisitionSettings,
    potential: Potential | None,
    width: int,
) -> Float32[np.ndarray, "n d"]:
    """Return the finite rows that were made, normalised as for the selection."""
    nothing = np.empty((0, width), dtype=np.float32)
    if sampler is None or not sampler.chunks:
        return nothing
    made = np.concatenate(sampler.chunks)
    rows: Float32[np.ndarray, "n d"] = made[is_finite(made)]
    blocks = feature_blocks(settings.make_representation(), potential)
    normalise_rows(nothing, rows, blocks, normalise=settings.resolved_normalise)
    return rows
