"""What can be asked of a study of the energy/force weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labelwise.errors import ArgumentError, check_name
from labelwise.features.options import REDUCTION_NAMES
from labelwise.potentials.spec import PARAMETER_BLOCKS
from labelwise.selection.options import DEFAULT_JOINT_REGULARISATION, check_regularisation
from labelwise.structures.label_keys import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY

DEFAULT_WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class WeightStudySettings:
    """Every setting of a study.

    Attributes:
        parameters: Blocks of weights that gradients are taken over.
        weights: The energy's weights w, 0 <= w <= 1: 0 is forces only, 1 energy only.
        reductions: Of the force rows of ``ntk-ef``.
        n_probes: Random probes that stand for the rows of the force Jacobian; None takes all.
        n_train: Structures of the pool that count as labelled in each repeat.
        n_repeats: Random labelled sets.
        regularisation: λ of the joint posterior, > 0; that of ``ntk-ef`` is 1e-3.
        batch_size: Structures of the batches that are fine-tuned on; 0 for no batches.
        max_updates: Most updates of a fine-tuning; None takes the recipe's.
        sketch_dim: Length of sketched rows; None takes the representation's.
        seed: Of labelled sets, probes, sketches, the random batch and fine-tunings, >= 0.
        energy_key: Info key of the total energy, eV.
        forces_key: Array key of the forces, eV/Å.
    """

    parameters: tuple[str, ...] = PARAMETER_BLOCKS
    weights: tuple[float, ...] = DEFAULT_WEIGHTS
    reductions: tuple[str, ...] = ("fields",)
    n_probes: int | None = 8
    n_train: int = 15
    n_repeats: int = 5
    regularisation: float = DEFAULT_JOINT_REGULARISATION
    batch_size: int = 0
    max_updates: int | None = None
    sketch_dim: int | None = None
    seed: int = 0
    energy_key: str = DEFAULT_ENERGY_KEY
    forces_key: str = DEFAULT_FORCES_KEY

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ArgumentError: A name is unknown, a list empty or with repeats, or a number out
                of range.
        """
        _check_names("parameters", self.parameters, PARAMETER_BLOCKS)
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
