"""What a calibration is asked for, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ase import Atoms

from labelwise.studies.diagnostics.calibration_metrics import CalibrationMetrics
from labelwise.studies.diagnostics.settings import CalibrationSettings


@dataclass(frozen=True)
class CalibrationSets:
    """Labelled structures; no structure is in two sets.

    Attributes:
        pool: What is acquired.
        valid: What chooses the prefix.
        test: What is reported.
        train: The initial set; empty to draw it from the pool.
        sources: Where each structure came from, by the set's name, for messages.
    """

    pool: Sequence[Atoms]
    valid: Sequence[Atoms]
    test: Sequence[Atoms]
    train: Sequence[Atoms] = ()
    sources: Mapping[str, Sequence[object]] = field(default_factory=dict)

    def by_role(self) -> dict[str, Sequence[Atoms]]:
        """Return the sets in the order in which they are computed."""
        return {"pool": self.pool, "train": self.train, "valid": self.valid, "test": self.test}


@dataclass(frozen=True)
class PrefixRecord:
    """One prefix of a replay.

    Attributes:
        n_labels: Its structures.
        scale: γ, eV², or eV² per atom².
        valid_nll: Negative log likelihood of the validation set, in eV (per atom).
        test: Of the test set, in eV (per atom).
        bias_rmse: Root mean square error of the test set without the kernel, b + r̄, in the
            same unit.
    """

    n_labels: int
    scale: float
    valid_nll: float
    test: CalibrationMetrics
    bias_rmse: float


@dataclass(frozen=True)
class Replay:
    """One acquisition replayed from one initial set.

    Attributes:
        initial_idx: The initial set's places in the pool; in the training set if one is given.
        pool_idx: Pool structures in the order in which they were acquired.
        prefixes: In order of size.
        chosen: Place in ``prefixes`` of the least validation negative log likelihood, the
            shortest of equal ones.
        n_unreached: Test structures whose composition is no combination of those that the
            chosen prefix's reference energies were fitted to: theirs rest on the checkpoint's.
    """

    initial_idx: tuple[int, ...]
    pool_idx: tuple[int, ...]
    prefixes: tuple[PrefixRecord, ...]
    chosen: int
    n_unreached: int

    @property
    def best(self) -> PrefixRecord:
        """The prefix that the validation set chose."""
        return self.prefixes[self.chosen]


@dataclass(frozen=True)
class KernelCalibration:
    """What one kernel does.

    Attributes:
        kernel: The representation.
        seconds: For the features of all structures, and for the replays.
        replays: One for each initial set.
    """

    kernel: str
    seconds: tuple[float, float]
    replays: tuple[Replay, ...]


@dataclass(frozen=True)
class Calibration:
    """What all kernels do.

    Attributes:
        settings: What was asked for.
        n_structures: Structures of each set.
        kernels: In the order asked for.
        resumed: Those that an earlier run had finished.
    """

    settings: CalibrationSettings
    n_structures: Mapping[str, int]
    kernels: tuple[KernelCalibration, ...]
    resumed: tuple[str, ...]
