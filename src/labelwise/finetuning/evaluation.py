"""Predictions of a potential on labelled structures, and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from labelwise.finetuning.labelled import LabelledSet, prepare_labelled
from labelwise.finetuning.trainable import (
    get_reference_energies,
    interaction_view,
    require_trainable,
)
from labelwise.metrics import ErrorTable, error_table
from labelwise.potentials import Graph, Potential
from labelwise.potentials.batching import DEFAULT_BATCH_ATOMS, fill_batches
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY

EDGES_PER_ATOM = 40


@dataclass(frozen=True)
class Evaluation:
    """Predictions and errors on a set of structures.

    Attributes:
        energies: (n,) float64, eV, total energies.
        forces: (n_atoms_i, 3) float64 each, eV/Å.
        errors: Against the labels.
    """

    energies: Float64[np.ndarray, " n"]
    forces: tuple[Float64[np.ndarray, "_ 3"], ...]
    errors: ErrorTable


def evaluate(
    potential: Potential,
    structures: Sequence[Atoms],
    *,
    energy_key: str = DEFAULT_ENERGY_KEY,
    forces_key: str = DEFAULT_FORCES_KEY,
    batch_atoms: int | None = None,
) -> Evaluation:
    """Predict energies and forces and compare them with the labels.

    Reference energies are added in double precision: in single precision a total energy of
    10,000 eV is only known to 1 meV.

    Args:
        potential: A MACE potential; it is not modified.
        structures: n labelled structures, n >= 1; they are not modified.
        energy_key: Info key of the total energy, eV.
        forces_key: Array key of the forces, eV/Å.
        batch_atoms: Atoms per batch; by default what suits the device.

    Returns:
        Predictions and errors.

    Raises:
        LabelError: a label that is missing, not finite, or a zero in place of a missing one.
        StructureError: a structure that the potential cannot take.
        ArgumentError: no structures.
        PotentialError: a potential of a family that cannot be trained here.
    """
    labelled = prepare_labelled(
        potential.graph_builder,
        structures,
        role="evaluated",
        energy_key=energy_key,
        forces_key=forces_key,
    )
    source = require_trainable(potential)
    return evaluate_labelled(
        interaction_view(source),
        labelled,
        reference_of(labelled.graphs, get_reference_energies(source)),
        batch_atoms=batch_atoms,
    )


def evaluate_labelled(
    view: Potential,
    labelled: LabelledSet,
    reference: Float64[np.ndarray, " n"],
    *,
    batch_atoms: int | None = None,
) -> Evaluation:
    """Evaluate a potential that gives interaction energies.

    Args:
        view: A potential without reference energies.
        labelled: n structures with graphs and labels.
        reference: (n,) float64, eV, their reference energies.
        batch_atoms: Atoms per batch; by default what suits the device.

    Returns:
        Predictions and errors.

    Raises:
        ArgumentError: no structures.
    """
    energies, forces = predict_graphs(view, labelled.graphs, batch_atoms=batch_atoms)
    return compare(energies + reference, forces, labelled)


def compare(
    energies: Float64[np.ndarray, " n"],
    forces: tuple[Float64[np.ndarray, "_ 3"], ...],
    labelled: LabelledSet,
) -> Evaluation:
    """Hold predictions against labels.

    Args:
        energies: (n,) float64, eV, total energies.
        forces: (n_atoms_i, 3) float64 each, eV/Å.
        labelled: n structures.

    Returns:
        Predictions and errors.

    Raises:
        ArgumentError: no structures.
    """
    table = error_table(
        energies,
        np.concatenate([np.zeros((0, 3)), *forces]),
        true_energies=labelled.energies,
        true_forces=np.concatenate([np.zeros((0, 3)), *labelled.forces]),
        atom_counts=labelled.atom_counts,
    )
    return Evaluation(energies, forces, table)


def predict_graphs(
    potential: Potential, graphs: Sequence[Graph], *, batch_atoms: int | None = None
) -> tuple[Float64[np.ndarray, " n"], tuple[Float64[np.ndarray, "_ 3"], ...]]:
    """Predict energies (n,) in eV and forces (n_atoms_i, 3) each in eV/Å, float64."""
    if batch_atoms is None:
        batch_atoms = DEFAULT_BATCH_ATOMS.get(potential.device.type, 256)
    energies: list[np.ndarray] = [np.zeros(0)]
    forces: list[np.ndarray] = []
    for group in fill_batches(graphs, batch_atoms, batch_atoms * EDGES_PER_ATOM):
        batch = potential.collate(group)
        prediction = potential.predict(batch)
        energies.append(prediction.energies.cpu().double().numpy())
        assert prediction.forces is not None  # noqa: S101  # forces are asked for by default
        joined = prediction.forces.cpu().double().numpy()
        forces.extend(np.split(joined, np.cumsum(batch.atom_counts)[:-1]))
    return np.concatenate(energies), tuple(forces)


def reference_of(
    graphs: Sequence[Graph], energies: Float64[np.ndarray, " E"]
) -> Float64[np.ndarray, " n"]:
    """Return each structure's reference energy, (n,) float64, eV."""
    return np.array([energies[graph.species].sum() for graph in graphs], dtype=np.float64)
