"""Committees: several fine-tuned potentials, and how much they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from ase import Atoms
from jaxtyping import Float64, Int64

from labelwise.errors import ArgumentError
from labelwise.finetuning.evaluation import predict_graphs
from labelwise.potentials import Potential
from labelwise.potentials.batching import build_graphs

Aggregate = Literal["mean", "max"]


def member_seeds(seed: int, n_members: int) -> list[int]:
    """Return a seed for each member; the first ones are the same for any number of members.

    Raises:
        ArgumentError: a negative seed.
    """
    if seed < 0:
        raise ArgumentError(f"seed is {seed}; allowed are integers >= 0")
    children = np.random.SeedSequence(seed).spawn(n_members)
    return [int(child.generate_state(1)[0]) for child in children]


def draw_bootstrap(n: int, *, seed: int) -> Int64[np.ndarray, " n"]:
    """Draw n places with replacement from n, in rising order: (n,) int64."""
    rng = np.random.default_rng([seed, 0])
    return np.sort(rng.integers(n, size=n)).astype(np.int64)


def predict_committee(
    potentials: Sequence[Potential],
    structures: Sequence[Atoms],
    *,
    batch_atoms: int | None = None,
) -> tuple[Float64[np.ndarray, "M n"], list[Float64[np.ndarray, "M _ 3"]]]:
    """Predict energies and forces with every member.

    Args:
        potentials: M members of one architecture; graphs are built with the first one's
            builder.
        structures: n structures; they are not modified.
        batch_atoms: Atoms per batch; by default what suits the device.

    Returns:
        Energies (M, n) float64 in eV, and for each structure forces (M, n_atoms, 3) float64
        in eV/Å.

    Raises:
        ArgumentError: fewer than two members, or members with other elements or cutoffs.
        StructureError: a structure that the potentials cannot take.
    """
    if len(potentials) < 2 or len({p.graph_builder for p in potentials}) > 1:
        raise ArgumentError(
            f"there are {len(potentials)} members; allowed are at least two of the same elements "
            "and cutoff"
        )
    graphs = list(build_graphs(potentials[0].graph_builder, structures))
    results = [predict_graphs(p, graphs, batch_atoms=batch_atoms) for p in potentials]
    energies = np.stack([energy for energy, _ in results])
    forces = [np.stack([force[i] for _, force in results]) for i in range(len(graphs))]
    return energies, forces


def committee_energy_score(energies: Float64[np.ndarray, "M n"]) -> Float64[np.ndarray, " n"]:
    """Return the standard deviation of the total energies over the members.

    The deviation of the M members themselves (divided by M, not M − 1): the ranking is the
    same, and so is the value in the papers.

    Args:
        energies: (M, n) float64, eV, M >= 2.

    Returns:
        (n,) float64, eV.

    Raises:
        ArgumentError: fewer than two members.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, equation 7.
    """
    _require_members(len(energies))
    score: Float64[np.ndarray, " n"] = energies.std(axis=0)
    return score


def committee_force_score(
    forces: Sequence[Float64[np.ndarray, "M _ 3"]], *, aggregate: str = "mean"
) -> Float64[np.ndarray, " n"]:
    """Return the standard deviation of the force components, aggregated over each structure.

    Args:
        forces: For each of n structures (M, n_atoms, 3) float64, eV/Å, M >= 2.
        aggregate: ``mean`` or ``max`` over the 3 n_atoms components.

    Returns:
        (n,) float64, eV/Å.

    Raises:
        ArgumentError: fewer than two members, or an unknown aggregate.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, section 3.2.2.
    """
    if aggregate not in get_args(Aggregate):
        raise ArgumentError(f"aggregate is {aggregate!r}; allowed are mean, max")
    scores = []
    for each in forces:
        _require_members(len(each))
        deviation = each.std(axis=0)
        scores.append(deviation.mean() if aggregate == "mean" else deviation.max())
    return np.array(scores, dtype=np.float64)


def _require_members(n_members: int) -> None:
    if n_members < 2:
        raise ArgumentError(f"there are {n_members} members; a committee needs at least two")
