"""Committees: several fine-tuned potentials, and how much they disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from ase import Atoms
from jaxtyping import Float64, Int64

from labelwise.errors import ArgumentError
from labelwise.finetuning.evaluation import predict_graphs
from labelwise.finetuning.loop import EpochRecord
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import FineTuned, finetune
from labelwise.potentials import Potential
from labelwise.potentials.batching import build_graphs
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY

Diversity = Literal["shuffle", "bootstrap", "scratch"]
Aggregate = Literal["mean", "max"]


def train_committee(
    potential: Potential,
    train: Sequence[Atoms],
    valid: Sequence[Atoms],
    recipe: Recipe,
    *,
    n_members: int = 3,
    diversity: str = "shuffle",
    seed: int,
    isolated_atoms: Mapping[int, float] | None = None,
    energy_key: str = DEFAULT_ENERGY_KEY,
    forces_key: str = DEFAULT_FORCES_KEY,
    train_sources: Sequence[object] | None = None,
    valid_sources: Sequence[object] | None = None,
    progress: Callable[[int, EpochRecord], None] | None = None,
) -> tuple[FineTuned, ...]:
    """Fine-tune several potentials that differ in one thing.

    ``shuffle``: the order of the structures. ``bootstrap``: the training set, drawn with
    replacement, as many structures as before, and the order. ``scratch``: the weights, drawn
    anew for every member, and the order.

    Args:
        potential: A MACE potential; it is not modified.
        train: Labelled structures, at least one.
        valid: Labelled structures for the choice of the epoch; may be empty.
        recipe: See ``finetune``; its ``start`` is overruled by ``scratch``.
        n_members: Members, >= 2.
        diversity: What the members differ in.
        seed: Gives each member a seed of its own; >= 0.
        isolated_atoms: Energies in eV of isolated atoms by atomic number.
        energy_key: Info key of the total energy, eV.
        forces_key: Array key of the forces, eV/Å.
        train_sources: Where each training structure came from, for messages.
        valid_sources: The same for the validation structures.
        progress: Called with a member's number and each of its records.

    Returns:
        The members, in order.

    Raises:
        ArgumentError: fewer than two members, an unknown diversity, or see ``finetune``.
        LabelError: see ``finetune``.
        StructureError: see ``finetune``.
        PotentialError: see ``finetune``.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, section 3.2.2.
    """
    if n_members < 2 or diversity not in get_args(Diversity):
        raise ArgumentError(
            f"n_members is {n_members} and diversity {diversity!r}; allowed are >= 2 and "
            f"{', '.join(get_args(Diversity))}"
        )
    if diversity == "scratch":
        recipe = replace(recipe, start="scratch")
    members = []
    for member, member_seed in enumerate(member_seeds(seed, n_members)):
        idx = list(range(len(train)))
        if diversity == "bootstrap":
            idx = draw_bootstrap(len(train), seed=member_seed).tolist()
        fitted = finetune(
            potential,
            [train[i] for i in idx],
            valid,
            recipe,
            seed=member_seed,
            isolated_atoms=isolated_atoms,
            energy_key=energy_key,
            forces_key=forces_key,
            train_sources=None if train_sources is None else [train_sources[i] for i in idx],
            valid_sources=valid_sources,
            progress=_numbered(progress, member),
        )
        members.append(fitted)
    return tuple(members)


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


def _numbered(
    progress: Callable[[int, EpochRecord], None] | None, member: int
) -> Callable[[EpochRecord], None] | None:
    if progress is None:
        return None
    return lambda record: progress(member, record)
