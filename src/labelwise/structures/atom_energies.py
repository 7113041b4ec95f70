"""Energies of the elements, fitted to total energies, and structures that lie far off the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Bool, Float64, Int64

# A combination of elements counts as determined from this singular value on, relative to the
# largest: below it an error of 1 meV/atom in the labels becomes 1 eV in an atom's energy.
_RANK_TOLERANCE = 1e-3
# How far off a prior is taken to be, eV.
_ERROR_OF_PRIOR = 10.0
#: A structure is far off beyond so many robust standard deviations ...
FAR_OFF = 10.0
#: ... if that is more than this, eV/atom. Wrong units and signs are off by tens to thousands.
#: Of 2,467 structures along reaction paths, the pretrained demo model is 0.05 eV/atom off (root
#: mean square) and 0.41 at most.
LEAST_FAR_OFF = 0.5
_DETERMINED = 1e-6
_MOST_ROUNDS = 20
_REWEIGHTINGS = 30
_NORMAL_MAD = 1.4826
#: Differences below this, relative to the values, are rounding.
_ROUNDING = 64 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class AtomEnergyFit:
    """One energy for each element, fitted to total energies.

    Attributes:
        energies: (E,) float64, eV, in the order of the elements; those of elements that are
            in no structure are the prior's.
        used: (n,) bool, the structures that were fitted: not those that lie far off what the
            others let expect, and none of weight zero.
        far_off: (n,) bool, those that lie far off.
        deviation: (n,) float64, eV/atom, of each structure from the fit to the others; NaN
            where these do not determine what to expect.
        n_determined: Independent combinations of elements that the structures fix.
        undetermined: (E,) bool, the elements whose energies they fix only in combination with
            others.
        uncertainty: (E,) float64, eV, standard error of each energy that is determined; NaN for
            the others, and where there are no more structures than combinations.
        prior_rms: Root mean square of what the prior leaves of the used energies, eV/atom.
        residual_rms: The same for the fit.
        noise: The same for the fit, corrected for the combinations that it was free to choose;
            NaN where there are no more structures than combinations.
    """

    energies: Float64[np.ndarray, " E"]
    used: Bool[np.ndarray, " n"]
    far_off: Bool[np.ndarray, " n"]
    deviation: Float64[np.ndarray, " n"]
    n_determined: int
    undetermined: Bool[np.ndarray, " E"]
    uncertainty: Float64[np.ndarray, " E"]
    prior_rms: float
    residual_rms: float
    noise: float


def count_elements(
    numbers: Sequence[np.ndarray], elements: Sequence[int]
) -> Int64[np.ndarray, "n E"]:
    """Count the atoms of each element in each structure, (n, E) int64.

    Args:
        numbers: (n_atoms_i,) atomic numbers of each of n structures.
        elements: (E,) atomic numbers; atoms of others are not counted.
    """
    wanted = np.array(elements, dtype=np.int64)
    size = len(chemical_symbols)
    counts = [np.bincount(each, minlength=size)[wanted] for each in numbers]
    return np.array(counts, dtype=np.int64).reshape(len(numbers), len(wanted))


def fit_atom_energies(
    counts: Int64[np.ndarray, "n E"],
    energies: Float64[np.ndarray, " n"],
    *,
    prior: Float64[np.ndarray, " E"],
    regularisation: float = 0.0,
    weights: Float64[np.ndarray, " n"] | None = None,
) -> AtomEnergyFit:
    """Fit one energy for each element to total energies.

    Minimises Σ_i w_i ((y_i − Σ_z n_iz e_z) / n_i)² + α Σ_z (e_z − prior_z)², errors per atom so
    that large structures do not outweigh small ones. A combination of elements that the
    structures do not determine stays at the prior. α is the regularisation if the prior is right
    to 10 eV; if the unregularised fit shows that it is further off (another code leaves out the
    core electrons, thousands of eV), α falls with the square of that, or it would bend the fit.

    Structures that lie far off the others (``FAR_OFF``, ``LEAST_FAR_OFF``) take no part: one
    wrong energy of 3,000 eV would shift every element by tens of eV. Without any such, this is
    the least-squares fit to all.

    Args:
        counts: (n, E) int64, atoms of each element in each structure.
        energies: (n,) float64, eV; or what a model leaves of them.
        prior: (E,) float64, eV, for instance energies of isolated atoms.
        regularisation: >= 0, dimensionless.
        weights: (n,) float64, >= 0, dimensionless; None for 1 each.

    Returns:
        The fit.
    """
    n_atoms = counts.sum(axis=1)
    parts = counts / n_atoms[:, None]
    offset = (energies - counts @ prior) / n_atoms
    usable = np.ones(len(offset), dtype=bool) if weights is None else weights > 0
    used, deviation = _find_near(parts, offset, usable, FAR_OFF, LEAST_FAR_OFF)
    present = counts[used].any(axis=0)
    A, b = parts[used][:, present], offset[used]
    root = None if weights is None else np.sqrt(weights[used])
    correction, Vt, rank = _solve(A, b, root, regularisation)
    fitted = prior.copy()
    fitted[present] += correction
    undetermined = np.zeros(len(prior), dtype=bool)
    undetermined[present] = np.abs(Vt[rank:]).max(axis=0, initial=0.0) > 1e-6
    residual_rms = _root_mean_square(b - A @ correction)
    n_free = len(b) - rank
    noise = residual_rms * float(np.sqrt(len(b) / n_free)) if n_free > 0 else np.nan
    uncertainty = np.full(len(prior), np.nan)
    uncertainty[present] = noise * np.sqrt(np.diag(np.linalg.pinv(A.T @ A, hermitian=True)))
    uncertainty[undetermined] = np.nan
    return AtomEnergyFit(
        energies=fitted,
        used=used,
        far_off=usable & ~used,
        deviation=deviation,
        n_determined=rank,
        undetermined=undetermined,
        uncertainty=uncertainty,
        prior_rms=_root_mean_square(b),
        residual_rms=residual_rms,
        noise=noise,
    )


def predict_left_out(
    counts: Int64[np.ndarray, "n E"], offset: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Return what fits to the structures of all other compositions leave of each.

    Args:
        counts: (n, E) int64, atoms of each element in each structure.
        offset: (n,) float64, eV/atom, what is to be fitted.

    Returns:
        (n,) float64, eV/atom; NaN where the other compositions do not determine what to expect.
    """
    parts = counts / counts.sum(axis=1, keepdims=True)
    compositions, group = np.unique(parts.round(9), axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(group.reshape(-1), minlength=len(compositions)))
    gram, moment = parts.T @ parts, parts.T @ offset
    left = np.full(len(offset), np.nan)
    for own in np.split(order, ends[:-1]):
        A, b = parts[own], offset[own]
        s, V = np.linalg.eigh(gram - A.T @ A)
        kept = s > max(_RANK_TOLERANCE**2 * s[-1], _ROUNDING * np.trace(gram))
        basis = V[:, kept]
        if np.abs(A[0] - basis @ (basis.T @ A[0])).max() > _DETERMINED:
            continue
        correction = basis @ ((basis.T @ (moment - A.T @ b)) / s[kept])
        left[own] = b - A @ correction
    return left


def in_row_space(
    known: Int64[np.ndarray, "n E"], others: Int64[np.ndarray, "m E"]
) -> Bool[np.ndarray, " m"]:
    """Tell which compositions are linear combinations of known ones.

    Args:
        known: (n, E) int64, atoms of each element in each structure.
        others: (m, E) int64.

    Returns:
        (m,) bool.
    """
    _, s, Vt = np.linalg.svd(known / known.sum(axis=1, keepdims=True), full_matrices=False)
    basis = Vt[s > _RANK_TOLERANCE * s[0]]
    rows = others / others.sum(axis=1, keepdims=True)
    rest = rows - (rows @ basis.T) @ basis
    inside: Bool[np.ndarray, " m"] = np.abs(rest).max(axis=1) < 1e-6
    return inside


def deviate_from_others(
    parts: Float64[np.ndarray, "n E"], target: Float64[np.ndarray, " n"], *, threshold: float
) -> Float64[np.ndarray, " n"]:
    """Return how far each energy is from what the compositions of the others let expect.

    Energies per atom are fitted by one energy for each element, first to the least sum of
    absolute deviations, which one wrong label does not bend, then by least squares without the
    structures that are farther off than ``threshold`` robust standard deviations, until
    nothing changes. Each deviation is from the fit without the structure itself,
    r / (1 − leverage).

    Args:
        parts: (n, E) float64, share of each element among the atoms.
        target: (n,) float64, eV/atom; NaN where there is none.
        threshold: Robust standard deviations, > 0.

    Returns:
        (n,) float64, eV/atom; NaN where there is no energy, or where the other compositions
        do not determine what to expect.
    """
    return _find_near(parts, target, np.isfinite(target), threshold, 0.0)[1]


def find_far_off(deviation: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Tell which structures lie far off: beyond ``FAR_OFF`` and ``LEAST_FAR_OFF``, (n,).

    Args:
        deviation: (n,) float64, eV/atom; NaN is not judged.
    """
    return ~_near(deviation, FAR_OFF, LEAST_FAR_OFF)


def robust_score(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return how many robust standard deviations each value is from the median.

    The standard deviation is 1.4826 times the median absolute deviation, which outliers do
    not inflate.

    Args:
        values: (n,) in any unit; those that are not finite are left out.

    Returns:
        (n,) float64, dimensionless; 0 for values at the median, infinite off it where more
        than half the values are equal, NaN where the value is not finite.

    Source: Iglewicz and Hoaglin, *How to Detect and Handle Outliers* (ASQC 1993).
    """
    finite = values[np.isfinite(values)]
    score = np.full(len(values), np.nan)
    if len(finite) == 0:
        return score
    median = np.median(finite)
    spread = _NORMAL_MAD * np.median(np.abs(finite - median))
    offset = finite - median
    floor = _ROUNDING * max(1.0, abs(float(median)))
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(np.abs(offset) <= floor, 0.0, offset / spread)
    score[np.isfinite(values)] = scaled
    return score


def _solve(
    A: Float64[np.ndarray, "n E"],
    b: Float64[np.ndarray, " n"],
    root: Float64[np.ndarray, " n"] | None,
    regularisation: float,
) -> tuple[Float64[np.ndarray, " E"], Float64[np.ndarray, "E E"], int]:
    """Return the correction of the prior, all right singular vectors, and the rank."""
    if len(b) == 0:
        return np.zeros(A.shape[1]), np.eye(A.shape[1]), 0
    if root is not None:
        A, b = A * root[:, None], b * root
    # All of V, also where structures are fewer than elements, but not n × n of U.
    U, s, Vt = np.linalg.svd(A, full_matrices=len(A) < A.shape[1])
    rank = int((s > _RANK_TOLERANCE * s[0]).sum())
    along = U[:, :rank].T @ b
    error_of_prior = np.sqrt(np.mean((along / s[:rank]) ** 2))
    alpha = regularisation * min(1.0, (_ERROR_OF_PRIOR / max(error_of_prior, 1e-9)) ** 2)
    return Vt[:rank].T @ (s[:rank] / (s[:rank] ** 2 + alpha) * along), Vt, rank


def _find_near(
    parts: Float64[np.ndarray, "n E"],
    target: Float64[np.ndarray, " n"],
    usable: Bool[np.ndarray, " n"],
    threshold: float,
    least: float,
) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return which usable structures are near the fit to the others, and the deviations."""
    deviation = np.full(len(target), np.nan)
    if not usable.any():
        return usable, deviation
    used = usable & _near(_deviate_absolutely(parts, target, usable), threshold, least)
    for _ in range(_MOST_ROUNDS):
        deviation = _deviate(parts, target, used)
        kept = usable & _near(deviation, threshold, least)
        if not kept.any() or (kept == used).all():
            break
        used = kept
    return used, deviation


def _near(
    deviation: Float64[np.ndarray, " n"], threshold: float, least: float
) -> Bool[np.ndarray, " n"]:
    """Tell which are not known to be far off, (n,); those that are not judged are near."""
    far = (np.abs(robust_score(deviation)) > threshold) & (np.abs(deviation) > least)
    near: np.ndarray = ~far
    return near


def _deviate_absolutely(
    parts: Float64[np.ndarray, "n E"],
    target: Float64[np.ndarray, " n"],
    used: Bool[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    """Return deviations from the fit of least absolute deviations, by reweighted squares."""
    rows, values = parts[used], target[used]
    weight = np.ones(len(values))
    left = values
    for _ in range(_REWEIGHTINGS):
        root = np.sqrt(weight)
        energies, *_ = np.linalg.lstsq(rows * root[:, None], values * root, rcond=None)
        left = values - rows @ energies
        size = np.abs(left)
        weight = 1.0 / np.maximum(size, max(1e-6 * float(size.max()), 1e-12))
    deviation = np.full(len(target), np.nan)
    deviation[used] = left
    return deviation


def _deviate(
    parts: Float64[np.ndarray, "n E"],
    target: Float64[np.ndarray, " n"],
    used: Bool[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    """Return the deviations from the fit to the used rows, each without itself."""
    inverse = np.linalg.pinv(parts[used])
    energies = inverse @ target[used]
    deviation = np.asarray(target - parts @ energies)
    leverage = np.zeros(len(target))
    leverage[used] = np.einsum("ne,en->n", parts[used], inverse)
    outside = np.abs(parts @ (inverse @ parts[used]) - parts).max(axis=1, initial=0.0) > _DETERMINED
    alone = 1.0 - leverage < _DETERMINED
    deviation[alone | outside] = np.nan
    deviation[~alone] /= (1.0 - leverage)[~alone]
    return deviation


def _root_mean_square(values: Float64[np.ndarray, " n"]) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else 0.0
