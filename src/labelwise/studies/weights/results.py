"""What a study of the energy/force weight is asked for, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from labelwise.studies.weights.settings import WeightStudySettings

#: Fewer structures have no rank correlation worth the name.
LEAST_SCORED = 3


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
