"""The Huber loss of energies per atom and force components, and its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import huber_loss

from labelwise.finetuning.labelled import LabelledSet
from labelwise.finetuning.recipe import Recipe


@dataclass(frozen=True)
class Targets:
    """What the interaction energies and forces of a batch should be.

    Attributes:
        energies: (n,) floating point, eV, total energies less the reference energies.
        forces: (N, 3) floating point, eV/Å.
        atom_counts: (n,) floating point.
        free: (N,) floating point, 1 for an atom whose forces count and 0 for one whose do not;
            None if all do.
    """

    energies: Float[Tensor, " n"]
    forces: Float[Tensor, "N 3"]
    atom_counts: Float[Tensor, " n"]
    free: Float[Tensor, " N"] | None = None

    def force_shares(self, weight: float) -> Float[Tensor, " N"]:
        """Return by what each atom's force components are multiplied for their weighted mean.

        Args:
            weight: Of the mean in the loss, dimensionless.

        Returns:
            (N,), dimensionless: weight / (3 · atoms that count), and 0 for an atom that does not.
        """
        if self.free is None:
            n_atoms = self.forces.shape[0]
            return self.forces.new_full((n_atoms,), weight / (3 * n_atoms))
        return self.free * (weight / (3 * self.free.sum().clamp(min=1.0)))


def collate_targets(
    labelled: LabelledSet,
    reference: Float64[np.ndarray, " n"],
    idx: Sequence[int],
    *,
    dtype: torch.dtype,
    device: torch.device,
    fixed_forces: str = "count",
) -> Targets:
    """Join the targets of some structures.

    Args:
        labelled: n structures.
        reference: (n,) float64, eV, the reference energy of each.
        idx: Places in the set, at least one.
        dtype: Floating-point type wanted.
        device: Where they are wanted.
        fixed_forces: ``exclude`` leaves out the forces of fixed atoms, if there are any.

    Returns:
        The targets; reference energies are subtracted in double precision.
    """
    places = np.asarray(idx)
    arrays = [
        labelled.energies[places] - reference[places],
        np.concatenate([labelled.forces[i] for i in idx]),
        labelled.atom_counts[places],
    ]
    free = np.concatenate([labelled.free[i] for i in idx])
    if fixed_forces == "exclude" and not free.all():
        arrays.append(free)
    return Targets(*(torch.from_numpy(array).to(device, dtype) for array in arrays))


def weighted_huber_loss(
    energies: Float[Tensor, " n"],
    forces: Float[Tensor, "N 3"],
    targets: Targets,
    recipe: Recipe,
) -> Float[Tensor, ""]:
    """Return the loss of a batch; see ``Recipe`` for the formula and the reason.

    Args:
        energies: (n,) eV.
        forces: (N, 3) eV/Å.
        targets: What they should be.
        recipe: Weights and δ.

    Returns:
        The loss, a scalar.
    """
    energy = huber_loss(
        energies / targets.atom_counts,
        targets.energies / targets.atom_counts,
        delta=recipe.huber_delta,
    )
    if targets.free is None:
        force = huber_loss(forces, targets.forces, delta=recipe.huber_delta)
        return recipe.energy_weight * energy + recipe.forces_weight * force
    each = huber_loss(forces, targets.forces, delta=recipe.huber_delta, reduction="none")
    shares = targets.force_shares(recipe.forces_weight)
    return recipe.energy_weight * energy + (shares * each.sum(1)).sum()
