"""How fast structures are screened and represented: a short trial on a sample."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from ase import Atoms

from labelwise.errors import ArgumentError
from labelwise.features.representations import (
    feature_blocks,
    feature_size,
    is_finite,
    iter_features,
)
from labelwise.potentials.base import Potential
from labelwise.potentials.batching import DEFAULT_BATCH_ATOMS
from labelwise.runtime.memory import peak_resident_bytes
from labelwise.selection.rules import get_rule
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import Frame

_WARM_UP_PART = 4
#: The relative error of a rate that too few batches tell.
_UNKNOWN_ERROR = 0.5
_LEAST_BATCHES = 3


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
    """Screen and represent structures of a sample until the time is over.

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
    counted = frames
    if settings.needs_features:
        n_first = _count_warm_up(frames, settings, potential)
        _Run(settings, potential).represent(frames[:n_first], math.inf)
        counted = frames[n_first:] if n_first < len(frames) else frames
    run = _Run(settings, potential)
    run.represent(counted, deadline)
    representation = settings.make_representation()
    has_rows = settings.needs_features
    return Trial(
        n_structures=run.n_kept,
        n_atoms=run.n_atoms_kept,
        kept_fraction=run.n_kept / max(1, run.n_read),
        screen_s_per_atom=run.screen_s / max(1, run.n_atoms_read),
        represent_s_per_atom=sum(run.seconds) / max(1, run.n_atoms_kept),
        relative_error=_relative_error(run.sizes, run.seconds) if has_rows else 0.0,
        width=feature_size(representation, potential) if has_rows else 0,
        n_blocks=len(feature_blocks(representation, potential)) if has_rows else 0,
        peak_memory_bytes=peak_resident_bytes(),
        device="cpu" if potential is None else str(potential.device),
        device_memory_bytes=_device_peak(potential),
    )


@dataclass
class _Run:
    """Screening and representing as a selection does it, with the time of each."""

    settings: AcquisitionSettings
    potential: Potential | None
    n_read: int = 0
    n_atoms_read: int = 0
    n_kept: int = 0
    n_atoms_kept: int = 0
    screen_s: float = 0.0
    sizes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def represent(self, frames: Sequence[Frame], deadline: float) -> None:
        structures = self._passing(frames, deadline)
        if not self.settings.needs_features:
            self.n_kept = sum(1 for _ in structures)
            return
        representation = self.settings.make_representation()
        began = time.perf_counter()
        for chunk in iter_features(
            structures, self.potential, representation, batch_atoms=self.settings.batch_atoms
        ):
            self.n_kept += int(is_finite(chunk).sum())
            self.sizes.append(len(chunk))
            busy = time.perf_counter() - began - self.screen_s
            self.seconds.append(busy - sum(self.seconds))

    def _passing(self, frames: Sequence[Frame], deadline: float) -> Iterator[Atoms]:
        """Give out structures that pass the screen until the time is over, at least one read."""
        screen = self.settings.make_recipe().make_screen(self.potential)
        for frame in frames:
            began = time.perf_counter()
            is_sound = screen.check_pool(frame) is None
            self.screen_s += time.perf_counter() - began
            self.n_read += 1
            self.n_atoms_read += len(frame.atoms)
            if is_sound:
                self.n_atoms_kept += len(frame.atoms)
                yield frame.atoms
            if time.perf_counter() > deadline:
                return


def _count_warm_up(
    frames: Sequence[Frame], settings: AcquisitionSettings, potential: Potential | None
) -> int:
    """Return how many structures are about a quarter of a batch."""
    device = "cpu" if potential is None else potential.device.type
    limit = settings.batch_atoms
    limit = DEFAULT_BATCH_ATOMS.get(device, 256) if limit is None else limit
    sizes = np.cumsum([len(frame.atoms) for frame in frames])
    return 1 + int(np.searchsorted(sizes, limit // _WARM_UP_PART))


def _relative_error(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the standard error of the mean time of a row, from the batches.

    Source: Cochran, *Sampling Techniques*, 3rd ed. 1977, section 6.4 (ratio estimates).
    """
    k = len(sizes)
    if k < _LEAST_BATCHES:
        return _UNKNOWN_ERROR
    residuals = np.array(seconds) - sum(seconds) / sum(sizes) * np.array(sizes)
    return math.sqrt(float(np.square(residuals).sum()) / (k * (k - 1))) / (sum(seconds) / k)


def _device_peak(potential: Potential | None) -> int | None:
    if potential is None or potential.device.type != "cuda":
        return None
    return int(torch.cuda.max_memory_allocated(potential.device))
