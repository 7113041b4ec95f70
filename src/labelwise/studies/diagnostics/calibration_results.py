"""What a calibration is asked for, and what it finds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ase import Atoms

from labelwise.errors import ArgumentError, check_name
from labelwise.features.representations import (
    RepresentationOptions,
    check_normalisation,
    list_representations,
)
from labelwise.selection.rules.base import DEFAULT_REGULARISATION
from labelwise.studies.diagnostics.calibration_metrics import DEFAULT_N_BINS, CalibrationMetrics

#: The kernels of table 2 of *Pretrained Model Representations as Acquisition Signals*.
PAPER_KERNELS = ("activation", "activation-random", "ntk-e", "ntk-random", "soap", "morgan")
REFERENCES = ("prefix", "initial", "checkpoint")
DEFAULT_MAX_LABELS = 200


@dataclass(frozen=True)
class CalibrationSettings:
    """What is calibrated, and how.

    Attributes:
        kernels: Registered representations, each once.
        n_initial: Labelled structures that are drawn from the pool to begin with, >= 2; not
            used with a given labelled set.
        step: Structures between one prefix and the next, >= 1.
        max_labels: Size of the longest prefix; None for 200, or the whole pool if it is smaller.
        n_repeats: Initial sets, >= 1.
        regularisation: λ of the acquisition and of the Gaussian process, > 0.
        normalise: ``cosine`` or ``none``, see ``build_kernels``.
        references: Whose labels the atomic reference energies are fitted to: each ``prefix``,
            the ``initial`` set, or nobody's (``checkpoint``).
        per_atom: Energies per atom in place of total energies.
        with_noise: Predictive variance γ(s² + λ) in place of γ s².
        n_bins: Of the expected normalised calibration error, >= 1.
        seed: Of the initial sets, >= 0.
        energy_key: Info key of the total energy, eV.
        options: Of the representations.

    Raises:
        ArgumentError: A value out of range, or an unknown name.
    """

    kernels: tuple[str, ...] = PAPER_KERNELS
    n_initial: int = 10
    step: int = 5
    max_labels: int | None = None
    n_repeats: int = 1
    regularisation: float = DEFAULT_REGULARISATION
    normalise: str = "cosine"
    references: str = "prefix"
    per_atom: bool = False
    with_noise: bool = False
    n_bins: int = DEFAULT_N_BINS
    seed: int = 0
    energy_key: str = "REF_energy"
    options: RepresentationOptions = field(default_factory=RepresentationOptions)

    def __post_init__(self) -> None:
        check_normalisation(self.normalise)
        self._check_kernels()
        least = {"n_initial": 2, "step": 1, "n_repeats": 1, "n_bins": 1, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ArgumentError(f"{name} is {getattr(self, name)}; allowed is >= {bound}")
        if not (math.isfinite(self.regularisation) and self.regularisation > 0):
            raise ArgumentError(f"regularisation is {self.regularisation}; allowed is > 0")
        check_name("references", self.references, REFERENCES)

    def _check_kernels(self) -> None:
        for name in self.kernels:
            check_name("kernel", name, list_representations())
        if not self.kernels or len(set(self.kernels)) < len(self.kernels):
            raise ArgumentError(
                f"kernels are {', '.join(self.kernels) or 'none'}; give at least one, each once"
            )


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
