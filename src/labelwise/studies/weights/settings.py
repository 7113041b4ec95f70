"""What can be asked of a study of the energy/force weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from labelwise.errors import ArgumentError, check_name
from labelwise.features.options import CHOICE, DEFAULT_PROBES, REDUCTION_NAMES
from labelwise.runtime.settings import Setting
from labelwise.selection.options import DEFAULT_JOINT_REGULARISATION, check_regularisation
from labelwise.structures.label_keys import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY

BATCHES = "Batches"
DEFAULT_WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class WeightStudySettings:
    """Every setting of a study."""

    parameters: Annotated[
        tuple[str, ...], Setting("Blocks of parameters to compare.", panel=CHOICE)
    ] = ("embedding", "readout", "products", "all")
    weights: Annotated[
        tuple[float, ...],
        Setting("Weights of the energy: 0 forces only, 1 energy only.", panel=CHOICE),
    ] = DEFAULT_WEIGHTS
    reductions: Annotated[
        tuple[str, ...],
        Setting(
            "Of the force rows of ntk-ef: rms, element-rms, force-norm, fields, moments.",
            flags=("--reduction",),
            panel=CHOICE,
        ),
    ] = ("fields",)
    n_probes: Annotated[
        int | None,
        Setting(
            "Random probes in place of all 3N force tangents of a structure.",
            flags=("--probes",),
            ge=1,
            none="exact",
            metavar="N|exact",
            panel=CHOICE,
        ),
    ] = DEFAULT_PROBES
    n_train: Annotated[int, Setting("Labelled structures drawn from the pool.", ge=1)] = 15
    n_repeats: Annotated[int, Setting("Random labelled sets.", flags=("--repeats",), ge=1)] = 5
    regularisation: Annotated[float, Setting("λ of the joint posterior.", gt=0, panel=CHOICE)] = (
        DEFAULT_JOINT_REGULARISATION
    )
    batch_size: Annotated[
        int,
        Setting(
            "Also fine-tune on the labelled structures and a batch of B.",
            ge=0,
            metavar="B",
            panel=BATCHES,
        ),
    ] = 0
    max_updates: Annotated[int | None, Setting("Of a fine-tuning.", ge=1, panel=BATCHES)] = None
    sketch_dim: Annotated[
        int | None,
        Setting("Length of sketched rows; by default the representation's.", ge=1, panel=CHOICE),
    ] = None
    seed: Annotated[int, Setting("Of everything that is drawn.", ge=0)] = 0
    energy_key: Annotated[str, Setting("Info key of the energies, eV.")] = DEFAULT_ENERGY_KEY
    forces_key: Annotated[str, Setting("Array key of the forces, eV/Å.")] = DEFAULT_FORCES_KEY

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ArgumentError: A name is unknown, a list empty or with repeats, or a number out
                of range.
        """
        _check_names("reductions", self.reductions, REDUCTION_NAMES)
        inside = all(0.0 <= weight <= 1.0 for weight in self.weights)
        if not self.weights or not inside or len(set(self.weights)) < len(self.weights):
            raise ArgumentError(
                f"weights are {', '.join(map(str, self.weights)) or 'none'}; "
                "allowed are different numbers from 0 to 1, at least one"
            )
        check_regularisation(self.regularisation)
        minima = {"n_train": 1, "n_repeats": 1, "batch_size": 0, "seed": 0}
        minima |= {"n_probes": 1, "max_updates": 1, "sketch_dim": 1}
        for name, minimum in minima.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ArgumentError(f"{name} is {value}; it must be at least {minimum}")


def _check_names(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    for each in given:
        check_name(name, each, known)
    if not given or len(set(given)) < len(given):
        raise ArgumentError(
            f"{name} are {', '.join(map(repr, given)) or 'none'}; allowed are "
            f"{', '.join(known)}, at least one and each once"
        )
