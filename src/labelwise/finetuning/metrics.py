"""Errors, learning curves and what a rule gains over another: pure array functions."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import ArrayLike

from labelwise.errors import ArgumentError

_MEV = 1000.0
#: GPa in a meV/Å³.
MEV_TO_GPA = 0.1602176634


@dataclass(frozen=True)
class ErrorTable:
    """Errors of a potential on a set of structures.

    Forces are compared component by component, all components of all structures together.

    Attributes:
        n_structures: Structures.
        n_atoms: Atoms in all structures.
        n_force_atoms: Atoms whose forces are compared: fewer where fixed atoms are left out.
        energy_mae: Mean absolute error of the total energy, meV.
        energy_rmse: Root mean square error of the total energy, meV.
        energy_mae_per_atom: Mean absolute error of the energy per atom, meV/atom.
        energy_rmse_per_atom: Root mean square error of the energy per atom, meV/atom.
        forces_mae: Mean absolute error of the force components, meV/Å.
        forces_rmse: Root mean square error of the force components, meV/Å.
        n_stresses: Structures whose stress is compared; None if none has a stress label.
        stress_mae: Mean absolute error of their stress components, meV/Å³, or None.
        stress_rmse: Root mean square error of their stress components, meV/Å³, or None.
    """

    n_structures: int
    n_atoms: int
    n_force_atoms: int
    energy_mae: float
    energy_rmse: float
    energy_mae_per_atom: float
    energy_rmse_per_atom: float
    forces_mae: float
    forces_rmse: float
    n_stresses: int | None = None
    stress_mae: float | None = None
    stress_rmse: float | None = None

    def as_record(self) -> dict[str, int | float]:
        """Return the errors by name; those of stress only where there are stress labels."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def error_table(
    energies: Float64[np.ndarray, " n"],
    forces: Float64[np.ndarray, "N 3"],
    *,
    true_energies: Float64[np.ndarray, " n"],
    true_forces: Float64[np.ndarray, "N 3"],
    atom_counts: Int64[np.ndarray, " n"],
    force_atoms: Bool[np.ndarray, " N"] | None = None,
    stress_errors: Float64[np.ndarray, "m 3 3"] | None = None,
    has_energy: Bool[np.ndarray, " n"] | None = None,
    has_forces: Bool[np.ndarray, " n"] | None = None,
) -> ErrorTable:
    """Compare predictions with labels.

    Args:
        energies: (n,) float64, eV, predicted total energies.
        forces: (N, 3) float64, eV/Å, predicted, structures in order.
        true_energies: (n,) float64, eV.
        true_forces: (N, 3) float64, eV/Å.
        atom_counts: (n,) int64, atoms of each structure, N in all.
        force_atoms: (N,) bool, the atoms whose forces are compared; None for all.
        has_energy: (n,) bool, whose energies are compared; None for all.
        has_forces: (n,) bool, whose forces are compared; None for all.
        stress_errors: (m, 3, 3) float64, eV/Å³, predicted less true, of those that have labels.

    Returns:
        The errors in meV, meV/Å and meV/Å³.

    Raises:
        ArgumentError: no structures, shapes that do not belong together, or no atom whose
            forces are compared.
    """
    counts = atom_counts
    n, n_atoms = len(counts), int(np.sum(counts))
    shapes_fit = energies.shape == true_energies.shape == (n,)
    shapes_fit = shapes_fit and forces.shape == true_forces.shape == (n_atoms, 3)
    if n == 0 or not shapes_fit:
        raise ArgumentError(
            f"energies are {energies.shape} and {true_energies.shape}, forces {forces.shape} and "
            f"{true_forces.shape}; allowed are ({n},) and ({n_atoms}, 3) with at least one "
            "structure"
        )
    energy = (energies - true_energies) * _MEV
    force = (forces - true_forces) * _MEV
    if has_energy is not None:
        energy, atom_counts = energy[has_energy], atom_counts[has_energy]
    if has_forces is not None and not has_forces.all():
        compared = np.repeat(has_forces, counts)
        force = force[compared]
        force_atoms = None if force_atoms is None else force_atoms[compared]
    if force_atoms is not None and len(force):
        force = _take_atoms(force, force_atoms)
    tension = None
    if stress_errors is not None and len(stress_errors):
        tension = stress_errors * _MEV
    return ErrorTable(
        n_structures=n,
        n_atoms=n_atoms,
        n_force_atoms=len(force),
        energy_mae=mean_absolute(energy),
        energy_rmse=root_mean_square(energy),
        energy_mae_per_atom=mean_absolute(energy / atom_counts),
        energy_rmse_per_atom=root_mean_square(energy / atom_counts),
        forces_mae=mean_absolute(force),
        forces_rmse=root_mean_square(force),
        n_stresses=None if tension is None else len(tension),
        stress_mae=None if tension is None else mean_absolute(tension),
        stress_rmse=None if tension is None else root_mean_square(tension),
    )


def _take_atoms(
    force: Float64[np.ndarray, "N 3"], force_atoms: Bool[np.ndarray, " m"]
) -> Float64[np.ndarray, "k 3"]:
    if force_atoms.shape != (len(force),) or not force_atoms.any():
        raise ArgumentError(
            f"force_atoms has shape {force_atoms.shape} and names {int(force_atoms.sum())} atoms; "
            f"allowed is the shape ({len(force)},) with at least one atom whose forces are "
            "compared: where all atoms are fixed, let their forces count"
        )
    taken: Float64[np.ndarray, "k 3"] = force[force_atoms]
    return taken


def mean_absolute(values: ArrayLike) -> float:
    """Return the mean of absolute values, in the unit of the values (NaN if there are none)."""
    array = np.asarray(values, dtype=np.float64)
    return float(np.abs(array).mean()) if array.size else float("nan")


def root_mean_square(values: ArrayLike) -> float:
    """Return the root of the mean square, in the unit of the values (NaN if there are none)."""
    array = np.asarray(values, dtype=np.float64)
    return float(np.sqrt(np.square(array).mean())) if array.size else float("nan")


def auc_of_curve(errors: ArrayLike) -> float:
    """Return the area under a learning curve: the plain sum over the rounds.

    A sum and not an integral over labels, so that curves compare only if they were measured
    after the same rounds.

    Args:
        errors: (n_rounds,) error after each round, in any unit.

    Returns:
        The sum, in the same unit.

    Raises:
        ArgumentError: no rounds, more than one axis, or values that are not finite.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, appendix C.
    """
    return float(_curve(errors, "errors").sum())


def round_gain(method: ArrayLike, reference: ArrayLike) -> float:
    """Return how many rounds a method saves against another, as a fraction.

    The target is the best error that both reach: the larger of their two minima. With r the
    first round at which a curve is at or below it (1 for the first measurement) the gain is
    (r_reference − r_method) / max(r_reference, r_method).

    Args:
        method: (n_rounds,) error of the method after each round, in any unit.
        reference: (m_rounds,) error of what it is held against, same unit.

    Returns:
        Between −1 and 1, dimensionless; positive if the method gets there first.

    Raises:
        ArgumentError: no rounds, more than one axis, or values that are not finite.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*,
    table 3; the denominator is inferred from its values.
    """
    curve, other = _curve(method, "method"), _curve(reference, "reference")
    target = max(curve.min(), other.min())
    r_method = int(np.argmax(curve <= target)) + 1
    r_reference = int(np.argmax(other <= target)) + 1
    return (r_reference - r_method) / max(r_reference, r_method)


def spearman(score: ArrayLike, error: ArrayLike) -> float:
    """Return the rank correlation of scores and errors.

    Args:
        score: (n,) what should be large where the error is, n >= 2, in any unit.
        error: (n,) in any unit.

    Returns:
        Between −1 and 1, dimensionless, with mean ranks for equal values; NaN if all scores
        or all errors are equal.

    Raises:
        ArgumentError: fewer than two values, not as many of one as of the other, or values
            that are not finite.
    """
    from scipy.stats import spearmanr  # takes half a second to load, which few runs need

    scores, errors = _pair(score, error, minimum=2)
    if np.ptp(scores) == 0 or np.ptp(errors) == 0:
        return float("nan")
    return float(spearmanr(scores, errors).statistic)


def sparsification_area(score: ArrayLike, error: ArrayLike) -> float:
    """Return how fast the error falls when the structures of largest score are taken out.

    They are taken out one after another, n − 1 times; after each, and before the first, the
    root mean square error of those that remain is noted. The area is the mean of these n
    values, divided by the first. Structures of equal score share their mean square error, as
    in the average over all orders in which they could be taken out.

    Args:
        score: (n,) what should be large where the error is, n >= 1, in any unit.
        error: (n,) one error a structure, in any unit.

    Returns:
        Dimensionless, > 0: 1 for a score that tells nothing, more if it misleads. No score does
        better than the absolute error itself, ``sparsification_area(abs(error), error)``. NaN
        if all errors are zero.

    Raises:
        ArgumentError: no values, not as many of one as of the other, or values that are not
            finite.

    Source: sparsification plots, Ilg et al., ECCV 2018; here the area itself, not its
    distance from the oracle's.
    """
    scores, errors = _pair(score, error, minimum=1)
    squares = np.square(errors)
    if not squares.any():
        return float("nan")
    _, group = np.unique(-scores, return_inverse=True)
    shared = np.bincount(group, squares) / np.bincount(group)
    in_order = shared[np.sort(group)]
    remaining = np.cumsum(in_order[::-1])[::-1] / np.arange(len(squares), 0, -1)
    return float(np.sqrt(remaining).mean() / np.sqrt(remaining[0]))


def _pair(
    score: ArrayLike, error: ArrayLike, *, minimum: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    scores = np.asarray(score, dtype=np.float64)
    errors = np.asarray(error, dtype=np.float64)
    fits = scores.ndim == 1 and scores.shape == errors.shape and len(scores) >= minimum
    if not fits or not (np.isfinite(scores).all() and np.isfinite(errors).all()):
        raise ArgumentError(
            f"score has shape {scores.shape} and error {errors.shape}; allowed are as many finite "
            f"numbers of one as of the other, at least {minimum}"
        )
    return scores, errors


def _curve(values: ArrayLike, name: str) -> Float64[np.ndarray, " n"]:
    curve = np.asarray(values, dtype=np.float64)
    if curve.ndim != 1 or curve.size == 0 or not np.isfinite(curve).all():
        raise ArgumentError(
            f"{name} has shape {curve.shape}; a learning curve is one finite error a round"
        )
    return curve
