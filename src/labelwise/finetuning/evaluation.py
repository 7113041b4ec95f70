"""Predictions of a potential on labelled structures, and their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
from ase import Atoms
from jaxtyping import Float64, Int64

from labelwise.errors import ArgumentError, check_name
from labelwise.finetuning.labelled import (
    LabelledSet,
    prepare_labelled,
    require_free_atoms,
)
from labelwise.finetuning.metrics import ErrorTable, error_table
from labelwise.finetuning.recipe import FixedForces
from labelwise.finetuning.reference_energies import explain_far_from_model
from labelwise.finetuning.suspicions import judge_predictions
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training_sets import require_head
from labelwise.potentials import Graph, Potential
from labelwise.potentials.batching import DEFAULT_BATCH_ATOMS, fill_batches
from labelwise.potentials.torch_potential import TorchPotential
from labelwise.structures.labels import (
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
    DEFAULT_STRESS_KEY,
)

EDGES_PER_ATOM = 40
#: Structures that are held against a model, evenly spread: enough for a tenth of them to be seen.
_MOST = 100


@dataclass(frozen=True)
class Evaluation:
    """Predictions and errors on a set of structures.

    Attributes:
        energies: (n,) float64, eV, total energies.
        forces: (n_atoms_i, 3) float64 each, eV/Å.
        errors: Against the labels.
        stresses: (n, 3, 3) float64, eV/Å³; None where no structure has a stress label.
        split_errors: The errors of each split on its own, by its name; empty if none were given.
        messages: What of the labels looks wrong beside the predictions, in plain words.
    """

    energies: Float64[np.ndarray, " n"]
    forces: tuple[Float64[np.ndarray, "_ 3"], ...]
    errors: ErrorTable
    stresses: Float64[np.ndarray, "n 3 3"] | None = None
    split_errors: Mapping[str, ErrorTable] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


def evaluate(
    potential: Potential,
    structures: Sequence[Atoms],
    *,
    energy_key: str = DEFAULT_ENERGY_KEY,
    forces_key: str = DEFAULT_FORCES_KEY,
    stress_key: str | None = DEFAULT_STRESS_KEY,
    partial_labels: bool = False,
    fixed_forces: str = "count",
    splits: Sequence[str] | None = None,
    sources: Sequence[object] | None = None,
    batch_atoms: int | None = None,
) -> Evaluation:
    """Predict energies and forces, and stress where labels have it, and compare with the labels.

    Reference energies are added in double precision: in single precision a total energy of
    10,000 eV is only known to 1 meV. Isolated atoms are predicted, but are in no error: their
    labels are reference energies. Weights in info do not count.

    Args:
        potential: A potential written in torch; it is not modified.
        structures: n labelled structures, n >= 1; they are not modified.
        energy_key: Info key of the total energy, eV.
        forces_key: Array key of the forces, eV/Å.
        stress_key: Info key of the stress, see ``get_stress``; None does not look for any.
        partial_labels: Whether structures may have energies alone or forces alone; each error is
            of those that have the label, NaN if none has.
        fixed_forces: ``exclude`` leaves the forces of fixed atoms (see ``free_atoms``) out of
            the errors; ``count`` does not look at constraints. Predictions have all atoms.
        splits: The split that each structure belongs to, (n,); each gets errors of its own.
        sources: Where each structure came from, (n,), for messages.
        batch_atoms: Atoms per batch; by default what suits the device.

    Returns:
        Predictions and errors.

    Example:
        >>> import labelwise as lw
        >>> from ase.build import molecule
        >>> atoms = molecule("H2O")
        >>> atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -2079.0, 0.1 * atoms.positions
        >>> lw.evaluate(lw.load_potential("demo"), [atoms]).errors.n_structures
        1

    Raises:
        LabelError: a label that is missing, not finite, or a zero in place of a missing one.
        StructureError: a structure that the potential cannot take.
        ArgumentError: no structures, not as many splits as structures, an unknown word for
            fixed_forces, forces of fixed atoms left out where all atoms are fixed, or
            structures of several heads or of another one than the potential's.
        PotentialError: a potential of a family that cannot be trained here.
    """
    check_fixed_forces(fixed_forces)
    labelled = prepare_labelled(
        potential.graph_builder,
        structures,
        role="evaluated",
        sources=sources,
        energy_key=energy_key,
        forces_key=forces_key,
        stress_key=stress_key,
        partial_labels=partial_labels,
    )
    source = require_trainable(potential)
    require_head(source, labelled.head)
    found = evaluate_labelled(
        source.without_references(),
        labelled,
        reference_of(labelled.graphs, source.reference_energies),
        fixed_forces=fixed_forces,
        batch_atoms=batch_atoms,
    )
    found = replace(found, messages=_suspect(found, labelled, sources))
    if splits is None:
        return found
    return replace(found, split_errors=_compare_splits(found, labelled, splits, fixed_forces))


def _suspect(
    found: Evaluation, labelled: LabelledSet, sources: Sequence[object] | None
) -> tuple[str, ...]:
    """Tell labels that look wrong beside predictions, or that did not converge."""
    idx = np.flatnonzero(~labelled.is_isolated & labelled.has_energy & labelled.has_forces)
    if len(idx) == 0:
        return ()
    names = [labelled.names[i] for i in idx]
    forces = [found.forces[i] for i in idx]
    said = judge_predictions(labelled, idx, found.energies[idx], forces, names, sources)
    offset = (labelled.energies - found.energies)[idx] / labelled.atom_counts[idx]
    return (*said, *explain_far_from_model(names, offset))


def suspect_labels(
    potential: TorchPotential,
    labelled: LabelledSet,
    sources: Sequence[object] | None,
    *,
    role: str = "training",
) -> tuple[str, ...]:
    """Hold labels against a model before anything is fitted to them; see ``judge_predictions``.

    Args:
        potential: As it starts.
        labelled: The structures with their labels, n; at most a hundred are looked at.
        sources: Where each came from, (n,); None for their places.
        role: What they are, for messages.
    """
    whole = np.flatnonzero(labelled.has_energy & labelled.has_forces)
    n = len(whole)
    if n == 0:
        return ()
    idx = whole[np.unique(np.linspace(0, n - 1, min(n, _MOST)).round().astype(np.int64))]
    graphs = [labelled.graphs[i] for i in idx]
    energies, forces = predict_graphs(potential.without_references(), graphs)
    names = [f"{role} structure {i}" if sources is None else sources[i] for i in idx]
    return judge_predictions(labelled, idx, energies, forces, names, sources)


def evaluate_labelled(
    view: Potential,
    labelled: LabelledSet,
    reference: Float64[np.ndarray, " n"],
    *,
    fixed_forces: str = "count",
    batch_atoms: int | None = None,
) -> Evaluation:
    """Evaluate a potential that gives interaction energies.

    Args:
        view: A potential without reference energies.
        labelled: n structures with graphs and labels.
        reference: (n,) float64, eV, their reference energies.
        fixed_forces: See ``evaluate``.
        batch_atoms: Atoms per batch; by default what suits the device.

    Returns:
        Predictions and errors.

    Raises:
        ArgumentError: no structures, or all atoms are fixed and their forces left out.
    """
    stress = bool(labelled.has_stress.any())
    energies, forces, stresses = predict_all(
        view, labelled.graphs, stress=stress, batch_atoms=batch_atoms
    )
    return compare(
        energies + reference, forces, labelled, fixed_forces=fixed_forces, stresses=stresses
    )


def compare(
    energies: Float64[np.ndarray, " n"],
    forces: tuple[Float64[np.ndarray, "_ 3"], ...],
    labelled: LabelledSet,
    *,
    fixed_forces: str = "count",
    stresses: Float64[np.ndarray, "n 3 3"] | None = None,
) -> Evaluation:
    """Hold predictions against labels.

    Args:
        energies: (n,) float64, eV, total energies.
        forces: (n_atoms_i, 3) float64 each, eV/Å.
        labelled: n structures.
        fixed_forces: See ``evaluate``.
        stresses: (n, 3, 3) float64, eV/Å³; None leaves stress labels aside.

    Returns:
        Predictions and errors.

    Raises:
        ArgumentError: no structures, or all atoms are fixed and their forces left out.
    """
    everything = np.flatnonzero(~labelled.is_isolated)
    table = _table_of(energies, forces, stresses, labelled, everything, fixed_forces, "evaluated")
    return Evaluation(energies, forces, table, stresses)


def check_fixed_forces(word: str) -> None:
    """Raise unless a word says what to do with the forces of fixed atoms.

    Raises:
        ArgumentError: It is neither ``count`` nor ``exclude``.
    """
    check_name("fixed_forces", word, get_args(FixedForces))


def _compare_splits(
    found: Evaluation, labelled: LabelledSet, splits: Sequence[str], fixed_forces: str
) -> dict[str, ErrorTable]:
    """Return the errors of each split, by name in alphabetical order."""
    if len(splits) != labelled.n_structures:
        raise ArgumentError(
            f"splits has {len(splits)} entries for {labelled.n_structures} structures; allowed "
            "is one each"
        )
    names = np.array(splits)
    return {
        name: _table_of(
            found.energies,
            found.forces,
            found.stresses,
            labelled,
            np.flatnonzero((names == name) & ~labelled.is_isolated),
            fixed_forces,
            f"{name!r}",
        )
        for name in sorted(set(names[~labelled.is_isolated].tolist()))
    }


def _table_of(
    energies: Float64[np.ndarray, " n"],
    forces: tuple[Float64[np.ndarray, "_ 3"], ...],
    stresses: Float64[np.ndarray, "n 3 3"] | None,
    labelled: LabelledSet,
    idx: Int64[np.ndarray, " m"],
    fixed_forces: str,
    role: str,
) -> ErrorTable:
    """Return the errors of some structures of a set."""
    free = None
    if fixed_forces == "exclude" and len(idx):
        require_free_atoms(labelled, role, idx=idx)
        free = np.concatenate([labelled.free[i] for i in idx])
    tension = None
    if stresses is not None:
        known = idx[labelled.has_stress[idx]]
        tension = stresses[known] - labelled.stresses[known]
    return error_table(
        energies[idx],
        np.concatenate([np.zeros((0, 3)), *(forces[i] for i in idx)]),
        true_energies=labelled.energies[idx],
        true_forces=np.concatenate([np.zeros((0, 3)), *(labelled.forces[i] for i in idx)]),
        atom_counts=labelled.atom_counts[idx],
        force_atoms=free,
        stress_errors=tension,
        has_energy=labelled.has_energy[idx],
        has_forces=labelled.has_forces[idx],
    )


def predict_graphs(
    potential: Potential, graphs: Sequence[Graph], *, batch_atoms: int | None = None
) -> tuple[Float64[np.ndarray, " n"], tuple[Float64[np.ndarray, "_ 3"], ...]]:
    """Predict energies (n,) in eV and forces (n_atoms_i, 3) each in eV/Å, float64."""
    return predict_all(potential, graphs, batch_atoms=batch_atoms)[:2]


def predict_all(
    potential: Potential,
    graphs: Sequence[Graph],
    *,
    stress: bool = False,
    batch_atoms: int | None = None,
) -> tuple[
    Float64[np.ndarray, " n"],
    tuple[Float64[np.ndarray, "_ 3"], ...],
    Float64[np.ndarray, "n 3 3"] | None,
]:
    """Predict stress (n, 3, 3) in eV/Å³, too, if wanted; see ``predict_graphs``."""
    if batch_atoms is None:
        batch_atoms = DEFAULT_BATCH_ATOMS.get(potential.device.type, 256)
    energies: list[np.ndarray] = [np.zeros(0)]
    forces: list[np.ndarray] = []
    stresses: list[np.ndarray] = [np.zeros((0, 3, 3))]
    for group in fill_batches(graphs, batch_atoms, batch_atoms * EDGES_PER_ATOM):
        batch = potential.collate(group)
        prediction = potential.predict(batch, stress=True) if stress else potential.predict(batch)
        if prediction.stresses is not None:
            stresses.append(prediction.stresses.cpu().double().numpy())
        energies.append(prediction.energies.cpu().double().numpy())
        assert prediction.forces is not None  # noqa: S101  # forces are asked for by default
        joined = prediction.forces.cpu().double().numpy()
        forces.extend(np.split(joined, np.cumsum(batch.atom_counts)[:-1]))
    return np.concatenate(energies), tuple(forces), np.concatenate(stresses) if stress else None


def reference_of(
    graphs: Sequence[Graph], energies: Float64[np.ndarray, " E"]
) -> Float64[np.ndarray, " n"]:
    """Return each structure's reference energy, (n,) float64, eV."""
    return np.array([energies[graph.species].sum() for graph in graphs], dtype=np.float64)
