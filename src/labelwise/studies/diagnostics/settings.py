"""What can be asked of the studies of a model's kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from labelwise.errors import ArgumentError, check_name
from labelwise.features.options import NORMALISATIONS, RepresentationOptions
from labelwise.selection.options import DEFAULT_REGULARISATION

#: The kernels of table 2 of *Pretrained Model Representations as Acquisition Signals*.
PAPER_KERNELS = ("activation", "activation-random", "ntk-e", "ntk-random", "soap", "morgan")
REFERENCES = ("prefix", "initial", "checkpoint")
DEFAULT_MAX_LABELS = 200
DEFAULT_MAX_STRUCTURES = 400
DEFAULT_N_BINS = 10

#: What 'labelwise geometry' writes for other programs, in the study's folder.
GEOMETRY_DATA = "geometry.json"


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
        check_name("normalise", self.normalise, NORMALISATIONS)
        self._check_kernels()
        least = {"n_initial": 2, "step": 1, "n_repeats": 1, "n_bins": 1, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ArgumentError(f"{name} is {getattr(self, name)}; allowed is >= {bound}")
        if not (math.isfinite(self.regularisation) and self.regularisation > 0):
            raise ArgumentError(f"regularisation is {self.regularisation}; allowed is > 0")
        check_name("references", self.references, REFERENCES)

    def _check_kernels(self) -> None:
        from labelwise.features.representations import list_representations  # loads torch

        for name in self.kernels:
            check_name("kernel", name, list_representations())
        if not self.kernels or len(set(self.kernels)) < len(self.kernels):
            raise ArgumentError(
                f"kernels are {', '.join(self.kernels) or 'none'}; give at least one, each once"
            )
