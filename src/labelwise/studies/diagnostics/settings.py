"""What can be asked of the studies of a model's kernels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from labelwise.errors import ArgumentError, check_name
from labelwise.features.options import NORMALISATIONS, RepresentationOptions
from labelwise.runtime.settings import CHOICE, Seed, Setting, check_bounds
from labelwise.selection.options import DEFAULT_REGULARISATION, Regularisation
from labelwise.structures.label_keys import DEFAULT_ENERGY_KEY, EnergyKey

#: The kernels of table 2 of *Pretrained Model Representations as Acquisition Signals*.
PAPER_KERNELS = ("activation", "activation-random", "ntk-e", "ntk-random", "soap", "morgan")
Kernels = Annotated[
    tuple[str, ...],
    Setting(
        "Representations to compare, with commas between.",
        flags=("--representations", "-r"),
        aliases=("--kernels",),
        panel=CHOICE,
    ),
]
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
        options: Of the representations.

    Raises:
        ArgumentError: A value out of range, or an unknown name.
    """

    kernels: Kernels = PAPER_KERNELS
    n_initial: Annotated[
        int, Setting("Structures drawn to begin with; not used with --train.", ge=2)
    ] = 10
    step: Annotated[int, Setting("Labels between two fits.", ge=1)] = 5
    max_labels: Annotated[
        int | None, Setting("Labels of the last fit; by default 200, or all.", ge=2)
    ] = None
    n_repeats: Annotated[int, Setting("Initial sets.", aliases=("--repeats",), ge=1)] = 1
    regularisation: Regularisation = DEFAULT_REGULARISATION
    normalise: Annotated[
        str,
        Setting(
            "Divide each structure's features by their own norm, or all by one number.",
            choices=NORMALISATIONS,
            panel=CHOICE,
        ),
    ] = "cosine"
    references: Annotated[
        str,
        Setting(
            "Fit atomic reference energies to the labels of each prefix or of the initial set, or "
            "keep the checkpoint's, for labels of its own level of theory.",
            choices=REFERENCES,
            panel=CHOICE,
        ),
    ] = "prefix"
    per_atom: Annotated[bool, Setting("Energies per atom, not total.", panel=CHOICE)] = False
    with_noise: Annotated[
        bool, Setting("Count λ as noise of the labels in the predicted variance.", panel=CHOICE)
    ] = False
    n_bins: Annotated[int, Setting("Bins of the ENCE.", ge=1, panel=CHOICE)] = DEFAULT_N_BINS
    seed: Seed = 0
    energy_key: EnergyKey = DEFAULT_ENERGY_KEY
    options: RepresentationOptions = field(default_factory=RepresentationOptions)

    def __post_init__(self) -> None:
        check_bounds(self)
        self._check_kernels()

    def _check_kernels(self) -> None:
        from labelwise.features.representations import list_representations  # loads torch

        for name in self.kernels:
            check_name("kernel", name, list_representations())
        if not self.kernels or len(set(self.kernels)) < len(self.kernels):
            raise ArgumentError(
                f"kernels are {', '.join(self.kernels) or 'none'}; give at least one, each once"
            )
