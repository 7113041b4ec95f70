"""How large the force errors of a potential are likely to be, structure by structure.

The joint energy-force posterior gives each force component a variance up to one factor, the
prior variance of the weights. That factor comes from labelled structures: either their own
errors against what the others would have predicted for them (leave one out), or the errors
on structures that took no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float64

from labelwise.errors import ArgumentError
from labelwise.features.representations import RepresentationOptions
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.representations.row_sets import RowScales, RowSets, join_row_sets
from labelwise.potentials import as_potential
from labelwise.potentials.base import Potential
from labelwise.potentials.batching import predict_structures
from labelwise.selection.rules.joint_posterior import DEFAULT_JOINT_REGULARISATION, JointPosterior
from labelwise.structures.given import Structures, atoms_of
from labelwise.structures.labels import DEFAULT_FORCES_KEY, get_forces


@dataclass(frozen=True)
class ForceUncertainty:
    """Predicted standard deviations of force components.

    Attributes:
        structure_std: (n,) float64, eV/Å, the root of the mean predicted variance over the 3N
            components of each structure.
        atom_std: (n_atoms_i,) float64 each, eV/Å, the same over the three components of each
            atom; None with probes, which mix the atoms.
        scale: Root of the prior variance of the weights in the units of the rows; what the
            posterior's standard deviations were multiplied with.
        n_calibration: Structures that the scale comes from.

    Example:
        >>> import numpy as np
        >>> from labelwise import ForceUncertainty
        >>> found = ForceUncertainty(np.array([0.1, 0.3]), None, scale=2.0, n_calibration=15)
        >>> int(found.structure_std.argmax())  # the structure to be trusted least
        1
    """

    structure_std: Float64[np.ndarray, " n"]
    atom_std: tuple[Float64[np.ndarray, " _"], ...] | None
    scale: float
    n_calibration: int


def predict_force_uncertainty(
    structures: Structures,
    potential: Potential | str | PathLike[str],
    *,
    train: Structures,
    calibration: Structures = (),
    options: RepresentationOptions | None = None,
    regularisation: float = DEFAULT_JOINT_REGULARISATION,
    forces_key: str = DEFAULT_FORCES_KEY,
    batch_atoms: int | None = None,
) -> ForceUncertainty:
    """Predict the standard deviation of a potential's force errors.

    Args:
        structures: n structures, n >= 1, as the pool of ``select``; not modified.
        potential: The potential whose errors are predicted, its name or path.
        train: m labelled structures that the posterior is conditioned on, m >= 2.
        calibration: Labelled structures that the potential was not fitted to and that are not
            in ``train``, for the scale. Without them the scale comes from ``train`` itself,
            left out one at a time: right for a potential that was not fitted to ``train``, such
            as the pretrained one, too small for one that was.
        options: ``parameters``, ``sketch_dim``, ``seed``, ``n_probes`` and ``energy_weight``;
            with ``n_probes=None``, variances are exact and there are those of atoms. By
            default exact and conditioned on forces alone (``energy_weight=0``), which ranked
            errors best.
        regularisation: λ, the noise variance in units of the mean prior variance, > 0.
        forces_key: Array key of the forces, eV/Å.
        batch_atoms: Atoms evaluated at once.

    Returns:
        Standard deviations in eV/Å. Under a normal distribution nine of ten errors of force
        components lie within 1.645 of them.

    Example:
        >>> import labelwise as lw
        >>> from ase.build import molecule
        >>> potential = lw.load_potential("demo")
        >>> train = [molecule(name) for name in ("H2O", "CH4", "CH3OH")]
        >>> for atoms in train:  # as a calculation would have them
        ...     atoms.rattle(0.1)
        ...     atoms.arrays["REF_forces"] = 0.1 * atoms.positions
        >>> found = lw.predict_force_uncertainty([molecule("C2H6")], potential, train=train)
        >>> found.structure_std.shape, found.atom_std[0].shape, found.n_calibration
        ((1,), (8,), 3)

    Raises:
        ArgumentError: Too few structures, an option out of range, or labelled structures whose
            forces do not depend on the weights.
        LabelError: A structure of ``train`` or ``calibration`` has no forces (of ``train`` only
            where the scale comes from it).
        SelectionError: λ is out of range.
        StructureError: The potential cannot take a structure.
    """
    structures, train = atoms_of(structures, "structures"), atoms_of(train, "train")
    calibration = atoms_of(calibration, "calibration")
    if len(structures) == 0 or len(train) < 2:
        raise ArgumentError(
            f"there are {len(structures)} structures and {len(train)} labelled ones; "
            "at least 1 and 2 are needed"
        )
    potential = as_potential(potential)
    if options is None:
        options = RepresentationOptions(n_probes=None, energy_weight=0.0)
    labelled = calibration if len(calibration) else train
    errors = _force_errors(potential, labelled, forces_key, batch_atoms)
    train_rows = _rows(train, potential, options, batch_atoms)
    scales = RowScales.measured(train_rows, normalise="none", energy_weight=options.energy_weight)
    train_sets = scales.weigh(train_rows)
    posterior = JointPosterior(train_sets, regularisation)
    if len(calibration):
        sets = scales.weigh(_rows(calibration, potential, options, batch_atoms))
        variances = force_variances(posterior, sets)
    else:
        variances = left_out_force_variances(posterior, train_sets)
    scale = _scale(errors, variances)
    sets = scales.weigh(_rows(structures, potential, options, batch_atoms))
    return ForceUncertainty(
        scale * np.sqrt(force_variances(posterior, sets)),
        None if options.n_probes is not None else _atom_std(posterior, sets, scale),
        scale,
        len(labelled),
    )


def _atom_std(
    posterior: JointPosterior, sets: RowSets, scale: float
) -> tuple[Float64[np.ndarray, " _"], ...]:
    rows = posterior.row_variances(sets.rows).numpy()
    blocks = np.split(rows, sets.starts.numpy()[1:])
    return tuple(scale * np.sqrt(block[1:].reshape(-1, 3).mean(axis=1)) for block in blocks)


def _rows(
    structures: Sequence[Atoms],
    potential: Potential,
    options: RepresentationOptions,
    batch_atoms: int | None,
) -> RowSets:
    parts = list(iter_row_sets(structures, potential, options, batch_atoms=batch_atoms))
    return join_row_sets(parts, parts[0].dim)


def _force_errors(
    potential: Potential, structures: Sequence[Atoms], key: str, batch_atoms: int | None
) -> list[Float64[np.ndarray, "_ 3"]]:
    """Return predicted minus true forces of each structure, eV/Å."""
    true = [get_forces(atoms, f"structure {i}", key) for i, atoms in enumerate(structures)]
    _, forces = predict_structures(potential, structures, batch_atoms=batch_atoms)
    return [force - label for force, label in zip(forces, true, strict=True)]


def left_out_force_variances(
    posterior: JointPosterior, train: RowSets
) -> Float64[np.ndarray, " m"]:
    """Return the mean variance of a force component of each labelled structure, left out.

    With K = RPRᵀ given all and C the same without the structure itself, K = λC(C + λI)⁻¹ and
    so C = λK(λI − K)⁻¹, in K's own eigenvectors.
    """
    noise = posterior.regularisation
    means = []
    for i in range(len(train)):
        covariance = posterior.covariance(train.take(torch.tensor([i])).rows)
        values, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.T))
        values = values.clamp(0.0, noise * (1.0 - 1e-9))
        prior = noise * values / (noise - values)
        per_row = vectors.square() @ prior
        means.append(float(per_row[1:].sum()) / (3 * int(train.n_atoms[i])))
    return np.array(means)


def force_variances(posterior: JointPosterior, sets: RowSets) -> Float64[np.ndarray, " n"]:
    """Return the mean variance of a force component of each structure."""
    rows = posterior.row_variances(sets.rows)
    rows[sets.starts] = 0.0
    total = torch.zeros(len(sets), dtype=torch.float64).index_add_(0, sets.owner, rows)
    return (total / (3 * sets.n_atoms)).numpy()


def _scale(errors: list[Float64[np.ndarray, "_ 3"]], variances: Float64[np.ndarray, " m"]) -> float:
    """Return the factor that makes the mean square of error / standard deviation one."""
    squares = [
        np.square(error).ravel() / variance
        for error, variance in zip(errors, variances, strict=True)
        if variance > 0
    ]
    if not squares:
        raise ArgumentError(
            "the forces of the labelled structures do not depend on the weights: "
            "isolated atoms cannot calibrate an uncertainty"
        )
    return float(np.sqrt(np.concatenate(squares).mean()))
