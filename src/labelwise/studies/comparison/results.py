"""What a comparison measured: one record for each campaign of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from labelwise.errors import check_name
from labelwise.finetuning.recipe import EnergyErrors

#: The errors that tables hold, by the names of ``ErrorTable``.
ERRORS = ("energy_rmse", "forces_rmse", "energy_mae", "forces_mae")
#: What takes their place in tables of energies per atom.
PER_ATOM = {"energy_rmse": "energy_rmse_per_atom", "energy_mae": "energy_mae_per_atom"}
#: What tables hold besides where test sets have stress labels.
STRESS_ERRORS = ("stress_rmse", "stress_mae")
#: The errors that a cell's curves hold.
MEASURED = (*ERRORS, *PER_ATOM.values(), *STRESS_ERRORS)


def name_error(error: str, energy_errors: str) -> str:
    """Return the error that a table shows in the place of one of ``ERRORS``.

    Raises:
        ArgumentError: energy_errors is neither ``total`` nor ``per-atom``.
    """
    check_name("energy_errors", energy_errors, get_args(EnergyErrors))
    return PER_ATOM.get(error, error) if energy_errors == "per-atom" else error


def unit_of(error: str) -> str:
    """Return the unit of one of ``MEASURED``: meV, meV/atom, meV/Å or meV/Å³."""
    if error in STRESS_ERRORS:
        return "meV/Å³"
    if error.startswith("forces"):
        return "meV/Å"
    return "meV/atom" if error.endswith("per_atom") else "meV"


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
        curves: Error to its value on the test set after each round, (n_rounds,), in the unit
            of ``unit_of``; keys are of ``MEASURED``.
        costs: One for each round.
        n_models: Models fine-tuned in a round.
        start: ``pretrained``, ``scratch`` or ``last``: what fine-tuning begins with.
        rank_correlations: For committees: ``energy`` and ``forces`` to the Spearman
            correlation of deviation and true error over the pool, one for each round after
            the first, (n_rounds − 1,); NaN where it could not be told. Empty otherwise.
        is_finished: Whether the campaign reached the end that the study sets.
        splits: Split of the test set to the curves measured on it; empty if there are none.
        undetermined: Rounds whose test energies the labels do not determine; they are NaN in
            ``curves``.
        messages: Round to what its fit had to say.
    """

    key: CellKey
    n_labels: tuple[int, ...]
    curves: Mapping[str, tuple[float, ...]]
    costs: tuple[RoundCost, ...]
    n_models: int = 1
    start: str = "pretrained"
    rank_correlations: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    is_finished: bool = True
    splits: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    undetermined: tuple[int, ...] = ()
    messages: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def is_asked(self, error: str) -> bool:
        """Return whether its test set has such an error; of stress it may have no labels."""
        return error not in STRESS_ERRORS or error in self.curves


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
