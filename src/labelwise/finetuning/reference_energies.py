"""Atomic reference energies for labels of another level of theory than the checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Bool, Float64, Int64

from labelwise.errors import ArgumentError
from labelwise.potentials import Graph

# A combination of elements counts as determined from this singular value on, relative to the
# largest: below it an error of 1 meV/atom in the labels becomes 1 eV in a reference energy.
_RANK_TOLERANCE = 1e-3
# How far off a prior is taken to be, eV.
_ERROR_OF_PRIOR = 10.0


@dataclass(frozen=True)
class ReferenceFit:
    """Atomic reference energies fitted to a labelled set.

    Attributes:
        energies: (E,) float64, eV, in the order of the elements; those of elements that are
            not in the set are the prior's.
        n_determined: Independent combinations of elements that the set fixes.
        undetermined: Atomic numbers whose energies the set fixes only in combination with
            others, or not at all (present in the set or not asked for: those are absent).
        residual_rms: Root mean square of what is left, eV/atom.
    """

    energies: Float64[np.ndarray, " E"]
    n_determined: int
    undetermined: tuple[int, ...]
    residual_rms: float


def count_elements(graphs: Sequence[Graph], n_elements: int) -> Int64[np.ndarray, "n E"]:
    """Count the atoms of each element in each structure, in the potential's order."""
    counts = [np.bincount(graph.species, minlength=n_elements) for graph in graphs]
    return np.stack(counts).astype(np.int64)


def fit_reference_energies(
    counts: Int64[np.ndarray, "n E"],
    residuals: Float64[np.ndarray, " n"],
    *,
    elements: Sequence[int],
    prior: Float64[np.ndarray, " E"],
    regularisation: float,
) -> ReferenceFit:
    """Fit atomic energies to what the model leaves unexplained.

    Minimises Σ_i ((r_i − Σ_z n_iz e_z) / n_i)² + α Σ_z (e_z − prior_z)², errors per atom so
    that large structures do not outweigh small ones. A combination of elements that the set
    does not determine stays at the prior. α is the regularisation if the prior is right to
    10 eV; if the unregularised fit shows that it is further off (another code leaves out the
    core electrons, thousands of eV), α falls with the square of that, or it would bend the fit.

    Args:
        counts: (n, E) int64, atoms of each element in each structure.
        residuals: (n,) float64, eV, label minus interaction energy of the model.
        elements: (E,) atomic numbers, for the report.
        prior: (E,) float64, eV, for instance energies of isolated atoms.
        regularisation: >= 0, dimensionless.

    Returns:
        The fit.
    """
    n_atoms = counts.sum(axis=1)
    present = counts.any(axis=0)
    A = counts[:, present] / n_atoms[:, None]
    b = (residuals - counts @ prior) / n_atoms
    U, s, Vt = np.linalg.svd(A, full_matrices=True)
    rank = int((s > _RANK_TOLERANCE * s[0]).sum())
    along = U[:, :rank].T @ b
    error_of_prior = np.sqrt(np.mean((along / s[:rank]) ** 2))
    alpha = regularisation * min(1.0, (_ERROR_OF_PRIOR / max(error_of_prior, 1e-9)) ** 2)
    correction = Vt[:rank].T @ (s[:rank] / (s[:rank] ** 2 + alpha) * along)
    energies = prior.copy()
    energies[present] += correction
    loose = np.abs(Vt[rank:]).max(axis=0, initial=0.0) > 1e-6
    left = b - A @ correction
    return ReferenceFit(
        energies=energies,
        n_determined=rank,
        undetermined=tuple(np.asarray(elements)[present][loose].tolist()),
        residual_rms=float(np.sqrt(np.mean(left**2))),
    )


def prior_energies(
    elements: Sequence[int],
    checkpoint: Float64[np.ndarray, " E"],
    energies: Mapping[int, float] | None,
    *,
    required: Sequence[int] = (),
    name: str = "isolated_atoms",
) -> Float64[np.ndarray, " E"]:
    """Overwrite the checkpoint's energies with known ones.

    Args:
        elements: (E,) atomic numbers.
        checkpoint: (E,) float64, eV.
        energies: eV by atomic number; None keeps all.
        required: Atomic numbers that must be among them.
        name: What to call the argument in a message.

    Returns:
        (E,) float64, eV.

    Raises:
        ArgumentError: a required element is missing, or an energy is not finite.
    """
    known = dict(energies) if energies is not None else {}
    missing = sorted(set(required) - set(known))
    if missing:
        raise ArgumentError(
            f"{name} lacks the energies of {list_symbols(missing)}, which the labelled set "
            "contains; add them, or set reference_energies to 'refit'"
        )
    if not np.isfinite(list(known.values())).all():
        raise ArgumentError(f"{name} holds energies that are not finite: {known}")
    merged = checkpoint.copy()
    for place, z in enumerate(elements):
        if z in known:
            merged[place] = known[z]
    return merged


def explain_undetermined(
    fit: ReferenceFit, n_compositions: int, prior_name: str
) -> tuple[str, ...]:
    """Say in plain words what the labelled set could not determine; () if nothing."""
    if not fit.undetermined:
        return ()
    noun = "composition" if n_compositions == 1 else "different compositions"
    message = (
        f"The labelled set has {n_compositions} {noun}: it does not determine the reference "
        f"energies of {list_symbols(fit.undetermined)} one by one, only {fit.n_determined} "
        f"combination{'s' if fit.n_determined > 1 else ''} of them. The rest was taken from "
        f"{prior_name}. Energies of structures with the labelled compositions are not affected; "
        "those of other compositions may be off by a constant of several eV. Label structures of "
        "other compositions, or give isolated atoms of the same level of theory."
    )
    return (message,)


def explain_unreached(
    train: Int64[np.ndarray, "n E"],
    others: Int64[np.ndarray, "m E"],
    *,
    elements: Sequence[int],
    prior_name: str,
) -> tuple[str, ...]:
    """Say which validation structures have a composition that the training set cannot reach."""
    outside = ~in_row_space(train, others)
    if not outside.any():
        return ()
    absent = others[outside].any(axis=0) & ~train.any(axis=0)
    new = list_symbols(np.asarray(elements)[absent].tolist())
    why = f" ({new} not in the training set)" if absent.any() else ""
    message = (
        f"{int(outside.sum())} of {len(others)} validation structures have a composition that is "
        f"no combination of the labelled ones{why}: their total energies rest on {prior_name} and "
        "may be off by a constant of several eV."
    )
    return (message,)


def in_row_space(
    train: Int64[np.ndarray, "n E"], others: Int64[np.ndarray, "m E"]
) -> Bool[np.ndarray, " m"]:
    """Tell which compositions are linear combinations of the training set's."""
    _, s, Vt = np.linalg.svd(train / train.sum(axis=1, keepdims=True), full_matrices=False)
    basis = Vt[s > _RANK_TOLERANCE * s[0]]
    rows = others / others.sum(axis=1, keepdims=True)
    rest = rows - (rows @ basis.T) @ basis
    inside: Bool[np.ndarray, " m"] = np.abs(rest).max(axis=1) < 1e-6
    return inside


def list_symbols(numbers: Sequence[int]) -> str:
    """Write atomic numbers as symbols: ``H, C and O``."""
    symbols = [chemical_symbols[z] for z in sorted(numbers)]
    if len(symbols) < 2:
        return "".join(symbols)
    return f"{', '.join(symbols[:-1])} and {symbols[-1]}"
