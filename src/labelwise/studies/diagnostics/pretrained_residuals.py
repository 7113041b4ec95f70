"""What a pretrained model leaves unexplained of labelled energies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float64, Int64

from labelwise.errors import LabelError, StructureError
from labelwise.finetuning.recipe import Recipe
from labelwise.potentials import Potential, map_batches
from labelwise.potentials.torch_potential import TorchPotential
from labelwise.structures.atom_energies import count_elements, fit_atom_energies, in_row_space
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, get_energy


@dataclass(frozen=True)
class PretrainedResiduals:
    """Labelled energies minus predictions, for n structures, up to the reference energies.

    Attributes:
        unreferenced: (n,) float64, eV, label minus interaction energy; for a model whose
            interaction energy cannot be had, label minus its energy.
        counts: (n, E) int64, atoms of each element.
        elements: (E,) atomic numbers.
        checkpoint: (E,) float64, eV, the model's reference energies; zero where they are
            within its energy.
    """

    unreferenced: Float64[np.ndarray, " n"]
    counts: Int64[np.ndarray, "n E"]
    elements: tuple[int, ...]
    checkpoint: Float64[np.ndarray, " E"]

    def fit_references(self, idx: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, " E"]:
        """Fit reference energies to some structures by least squares on composition.

        Labels of another level of theory than the checkpoint's differ from it by thousands of
        eV that depend on the composition alone, which is nothing that a kernel should learn.

        Args:
            idx: (k,) the structures whose labels are known, k >= 1.

        Returns:
            (E,) float64, eV; the checkpoint's where the structures do not determine them.
        """
        return fit_atom_energies(
            self.counts[idx],
            self.unreferenced[idx],
            prior=self.checkpoint,
            regularisation=Recipe().reference_regularisation,
        ).energies

    def at(
        self, idx: Int64[np.ndarray, " m"], references: Float64[np.ndarray, " E"]
    ) -> Float64[np.ndarray, " m"]:
        """Return r = y − b of some structures with these reference energies, (m,) float64, eV."""
        residuals: Float64[np.ndarray, " m"] = (
            self.unreferenced[idx] - self.counts[idx] @ references
        )
        return residuals

    def reached(
        self, labelled: Int64[np.ndarray, " k"], idx: Int64[np.ndarray, " m"]
    ) -> Bool[np.ndarray, " m"]:
        """Tell whose composition is a combination of the labelled ones', (m,)."""
        return in_row_space(self.counts[labelled], self.counts[idx])


def compute_residuals(
    potential: Potential,
    structures: Sequence[Atoms],
    energies: Float64[np.ndarray, " n"],
    *,
    batch_atoms: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> PretrainedResiduals:
    """Predict energies and subtract them from the labels.

    Args:
        potential: The pretrained model; it is not modified.
        structures: n structures; not modified.
        energies: (n,) float64, eV, their labels.
        batch_atoms: Atoms evaluated at once.
        progress: Called with the number of structures finished so far.

    Raises:
        StructureError: A structure that the potential cannot take, with its place.
    """
    source, checkpoint = potential, np.zeros(len(potential.elements))
    if isinstance(potential, TorchPotential):
        source, checkpoint = potential.without_references(), potential.reference_energies
    predicted = [
        part.double().numpy()
        for part in map_batches(
            source,
            structures,
            lambda batch: source.predict(batch, forces=False).energies,
            batch_atoms=batch_atoms,
            progress=progress,
        )
    ]
    return PretrainedResiduals(
        energies - np.concatenate([np.zeros(0), *predicted]),
        count_elements([atoms.numbers for atoms in structures], potential.elements),
        tuple(potential.elements),
        checkpoint,
    )


def read_energies(
    structures: Sequence[Atoms],
    *,
    role: str,
    sources: Sequence[object] | None = None,
    energy_key: str = DEFAULT_ENERGY_KEY,
) -> Float64[np.ndarray, " n"]:
    """Read the energies of labelled structures and check that positions are numbers.

    Args:
        structures: n structures.
        role: What they are, for messages: ``pool``.
        sources: Where each came from, for messages.
        energy_key: Info key of the total energy, eV.

    Returns:
        (n,) float64, eV.

    Raises:
        LabelError: An energy that is missing, not finite, or a zero in place of a missing one.
        StructureError: Positions or a cell that are not finite.
    """
    energies = np.zeros(len(structures))
    for i, atoms in enumerate(structures):
        where = f"{role} structure {i} ({atoms.get_chemical_formula()})"
        where = where if sources is None else f"{where} from {sources[i]}"
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            raise StructureError(
                f"{where}: positions or cell are not finite; leave the structure out"
            )
        energies[i] = get_energy(atoms, where, energy_key)
        if energies[i] == 0.0 and len(atoms) > 1:
            raise LabelError(
                f"{where}: label {energy_key!r} is exactly zero, which no total energy is; label "
                "the structure or leave it out"
            )
    return energies
