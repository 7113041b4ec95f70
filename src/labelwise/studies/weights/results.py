"""What a study of the energy/force weight is asked for, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from labelwise.errors import ArgumentError, check_name
from labelwise.features.representations.reductions import REDUCTIONS
from labelwise.potentials import PARAMETER_BLOCKS
from labelwise.selection.rules.base import check_regularisation
from labelwise.selection.rules.joint_posterior import DEFAULT_JOINT_REGULARISATION
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY

DEFAULT_WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
#: Fewer structures have no rank correlation worth the name.
LEAST_SCORED = 3


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
        _check_names("reductions", self.reductions, tuple(REDUCTIONS))
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


@dataclass(frozen=True)
class StudySets:
    """The structures of a study.

    Attributes:
        pool: Labelled structures that are scored.
        train: Structures that count as labelled; if there are none they come from the pool.
        valid: Labelled structures that choose the best epoch of a fine-tuning.
        test: Labelled structures that fine-tunings are measured on.
    """

    pool: Sequence[Atoms]
    train: Sequence[Atoms] = ()
    valid: Sequence[Atoms] = ()
    test: Sequence[Atoms] = ()

    @property
    def scored_or_train(self) -> list[Atoms]:
        """The pool, and behind it the given labelled structures."""
        return [*self.pool, *self.train]


@dataclass(frozen=True)
class BatchErrors:
    """What a fine-tuning on the labelled structures and a batch came to.

    Attributes:
        pool_idx: The batch, in order of choice.
        energy_rmse: On the test set, total energies, meV.
        forces_rmse: On the test set, meV/Å.
    """

    pool_idx: tuple[int, ...]
    energy_rmse: float
    forces_rmse: float


@dataclass(frozen=True)
class WeightScore:
    """How well one kernel with one weight tells where the errors are.

    Values are of each repeat; NaN where all scores are equal.

    Attributes:
        kernel: ``joint-pv``, ``joint-pv-cosine`` or ``ntk-ef-`` and the reduction.
        weight: The energy's part.
        spearman_forces: Rank correlation of score and true force error.
        spearman_energy: Rank correlation of score and true energy error.
        sparsification: Area under the sparsification curve of the force error.
        batch: Of the first repeat; None without batches.
    """

    kernel: str
    weight: float
    spearman_forces: tuple[float, ...]
    spearman_energy: tuple[float, ...]
    sparsification: tuple[float, ...]
    batch: BatchErrors | None = None


@dataclass(frozen=True)
class BlockStudy:
    """All kernels and weights of one block of parameters.

    Attributes:
        parameters: The block.
        n_parameters: Its length p.
        row_length: Length of a row after sketching.
        seconds: Wall time of the rows and features, s.
        scores: By kernel, then by weight.
    """

    parameters: str
    n_parameters: int
    row_length: int
    seconds: float
    scores: tuple[WeightScore, ...]


@dataclass(frozen=True)
class StudyReference:
    """What all blocks are held against.

    Attributes:
        force_errors: (n,) root mean square error of each pool structure's forces, meV/Å.
        energy_errors: (n,) absolute error of each pool structure's energy after reference
            energies were fitted, meV/atom.
        oracle: Sparsification area of the force errors themselves, for each repeat: the least
            that any score can reach.
        random: A random batch; None without batches.
    """

    force_errors: tuple[float, ...]
    energy_errors: tuple[float, ...]
    oracle: tuple[float, ...]
    random: BatchErrors | None = None


@dataclass(frozen=True)
class WeightStudy:
    """A finished study.

    Attributes:
        settings: What was asked for.
        reference: What all blocks are held against.
        blocks: In the order asked for.
        resumed: Blocks that an earlier run had finished.
    """

    settings: WeightStudySettings
    reference: StudyReference
    blocks: tuple[BlockStudy, ...]
    resumed: tuple[str, ...] = ()


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; NaN for the latter with one value."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")


def _check_names(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    for each in given:
        check_name(name, each, known)
    if not given or len(set(given)) < len(given):
        raise ArgumentError(
            f"{name} are {', '.join(map(repr, given)) or 'none'}; allowed are "
            f"{', '.join(known)}, at least one and each once"
        )
