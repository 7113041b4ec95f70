"""What a comparison measured: one record for each campaign of the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: The errors that a cell's curves hold, by the names of ``ErrorTable``.
ERRORS = ("energy_rmse", "forces_rmse", "energy_mae", "forces_mae")


@dataclass(frozen=True, order=True)
class CellKey:
    """Which campaign of a study.

    Attributes:
        pool: Name of the pool.
        method: Name of the method.
        seed: Seed of the campaign.
    """

    pool: str
    method: str
    seed: int


@dataclass(frozen=True)
class RoundCost:
    """What a round took, as measured.

    Attributes:
        seconds: Stage (``select``, ``label``, ``finetune``, ``measure``) to wall seconds.
        peak_mib: Stage to the largest resident memory of the process, MiB.
    """

    seconds: Mapping[str, float]
    peak_mib: Mapping[str, float]


@dataclass(frozen=True)
class CellResult:
    """One campaign: a method on a pool with a seed.

    Attributes:
        key: Which.
        n_labels: Labelled structures after each round, (n_rounds,), round 0 first.
        curves: Error to its value on the test set after each round, (n_rounds,), meV and
            meV/Å; keys are ``ERRORS``.
        costs: One for each round.
        n_models: Models fine-tuned in a round.
        start: ``pretrained``, ``scratch`` or ``last``: what fine-tuning begins with.
        rank_correlations: For committees: ``energy`` and ``forces`` to the Spearman
            correlation of deviation and true error over the pool, one for each round after
            the first, (n_rounds − 1,); NaN where it could not be told. Empty otherwise.
        is_finished: Whether the campaign reached the end that the study sets.
    """

    key: CellKey
    n_labels: tuple[int, ...]
    curves: Mapping[str, tuple[float, ...]]
    costs: tuple[RoundCost, ...]
    n_models: int = 1
    start: str = "pretrained"
    rank_correlations: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    is_finished: bool = True


@dataclass(frozen=True)
class MethodCost:
    """What scoring a pool with a method's representation takes (table 5).

    Attributes:
        method: Its name.
        n_forward: Forward passes of the model a candidate, as counted.
        n_backward: Backward passes a candidate, as counted.
        n_models: Models in use.
        dim: Length of a feature row; 0 where there is none.
        seconds_per_structure: Processor seconds to represent one structure, as measured.
        feature_mib: Memory of the pool's rows or kernel, MiB.
    """

    method: str
    n_forward: float
    n_backward: float
    n_models: int
    dim: int
    seconds_per_structure: float
    feature_mib: float
