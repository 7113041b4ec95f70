"""The Huber loss of energies per atom, force and stress components, and its targets."""

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
from labelwise.potentials.training import WeightedTargets


@dataclass(frozen=True)
class Targets:
    """What the interaction energies, forces and stresses of a batch should be.

    Attributes:
        energies: (n,) floating point, eV, total energies less the reference energies.
        forces: (N, 3) floating point, eV/Å.
        atom_counts: (n,) floating point.
        free: (N,) floating point, 1 for an atom whose forces count and 0 for one whose do not;
            None if all do.
        energy_weights: (n,) floating point, weight of each structure's energy; None for 1 each.
        forces_weights: (N,) floating point, weight of each atom's forces; None for 1 each.
        stresses: (n, 3, 3) floating point, eV/Å³, zeros where there is no label; None if no
            structure has one.
        stress_weights: (n,) floating point, weight of each structure's stress, 0 where there is
            no label; None with ``stresses``.
        n_stresses: Structures that have a stress label.
    """

    energies: Float[Tensor, " n"]
    forces: Float[Tensor, "N 3"]
    atom_counts: Float[Tensor, " n"]
    free: Float[Tensor, " N"] | None = None
    energy_weights: Float[Tensor, " n"] | None = None
    forces_weights: Float[Tensor, " N"] | None = None
    stresses: Float[Tensor, "n 3 3"] | None = None
    stress_weights: Float[Tensor, " n"] | None = None
    n_stresses: int = 0

    def energy_shares(self, weight: float) -> Float[Tensor, " n"]:
        """Return by what each structure's energy is multiplied for their weighted mean.

        Args:
            weight: Of the mean in the loss, dimensionless.

        Returns:
            (n,), dimensionless: weight / n times the structure's own weight.
        """
        shares = torch.full_like(self.energies, weight / self.energies.shape[0])
        return shares if self.energy_weights is None else shares * self.energy_weights

    def force_shares(self, weight: float) -> Float[Tensor, " N"]:
        """Return by what each atom's force components are multiplied for their weighted mean.

        Args:
            weight: Of the mean in the loss, dimensionless.

        Returns:
            (N,), dimensionless: weight / (3 · atoms that count) times the structure's own
            weight, and 0 for an atom that does not count.
        """
        if self.free is None:
            n_atoms = self.forces.shape[0]
            shares = self.forces.new_full((n_atoms,), weight / (3 * n_atoms))
        else:
            shares = self.free * (weight / (3 * self.free.sum().clamp(min=1.0)))
        return shares if self.forces_weights is None else shares * self.forces_weights

    def stress_shares(self, weight: float) -> Float[Tensor, " n"] | None:
        """Return by what each structure's stress components are multiplied for their mean.

        Args:
            weight: Of the mean in the loss, dimensionless.

        Returns:
            (n,), dimensionless: weight / (9 · structures with a label) times the structure's own
            weight, and 0 where there is no label; None if there is none at all.
        """
        if self.stress_weights is None:
            return None
        return self.stress_weights * (weight / (9 * self.n_stresses))


def collate_targets(
    labelled: LabelledSet,
    reference: Float64[np.ndarray, " n"],
    idx: Sequence[int],
    *,
    dtype: torch.dtype,
    device: torch.device,
    fixed_forces: str = "count",
    stress: bool = True,
) -> Targets:
    """Join the targets of some structures.

    Args:
        labelled: n structures.
        reference: (n,) float64, eV, the reference energy of each.
        idx: Places in the set, at least one.
        dtype: Floating-point type wanted.
        device: Where they are wanted.
        fixed_forces: ``exclude`` leaves out the forces of fixed atoms, if there are any.
        stress: Whether stress labels count, where there are any.

    Returns:
        The targets; reference energies are subtracted in double precision.
    """
    places = np.asarray(idx)
    n_atoms = labelled.atom_counts[places]
    arrays = {
        "energies": labelled.energies[places] - reference[places],
        "forces": np.concatenate([labelled.forces[i] for i in idx]),
        "atom_counts": n_atoms,
    }
    free = np.concatenate([labelled.free[i] for i in idx])
    if fixed_forces == "exclude" and not free.all():
        arrays["free"] = free
    if labelled.is_weighted:
        arrays["energy_weights"] = labelled.energy_weights[places]
        arrays["forces_weights"] = np.repeat(labelled.forces_weights[places], n_atoms)
    known = labelled.has_stress[places]
    if stress and known.any():
        arrays["stresses"] = np.nan_to_num(labelled.stresses[places])
        arrays["stress_weights"] = labelled.stress_weights[places] * known
    tensors = {name: torch.from_numpy(a).to(device, dtype) for name, a in arrays.items()}
    return Targets(**tensors, n_stresses=int(known.sum()))


def weight_targets(targets: Targets, recipe: Recipe) -> WeightedTargets:
    """Say what each target counts in the loss of ``weighted_huber_loss``."""
    return WeightedTargets(
        atom_counts=targets.atom_counts,
        energies=targets.energies,
        forces=targets.forces,
        energy_shares=targets.energy_shares(recipe.energy_weight),
        force_shares=targets.force_shares(recipe.forces_weight),
        delta=targets.energies.new_tensor(recipe.huber_delta),
        stresses=targets.stresses,
        stress_shares=targets.stress_shares(recipe.stress_weight),
    )


def weighted_huber_loss(
    energies: Float[Tensor, " n"],
    forces: Float[Tensor, "N 3"],
    targets: Targets,
    recipe: Recipe,
    stresses: Float[Tensor, "n 3 3"] | None = None,
) -> Float[Tensor, ""]:
    """Return the loss of a batch; see ``Recipe`` for the formula and the reason.

    Args:
        energies: (n,) eV.
        forces: (N, 3) eV/Å.
        targets: What they should be.
        recipe: Weights and δ.
        stresses: (n, 3, 3) eV/Å³; needed if the targets have some.

    Returns:
        The loss, a scalar.
    """
    loss = _loss_without_stress(energies, forces, targets, recipe)
    shares = targets.stress_shares(recipe.stress_weight)
    if targets.stresses is None or shares is None:
        return loss
    assert stresses is not None  # noqa: S101  # whoever has targets asks for predictions
    each = huber_loss(stresses, targets.stresses, delta=recipe.huber_delta, reduction="none")
    return loss + (shares * each.sum((1, 2))).sum()


def _loss_without_stress(
    energies: Float[Tensor, " n"],
    forces: Float[Tensor, "N 3"],
    targets: Targets,
    recipe: Recipe,
) -> Float[Tensor, ""]:
    delta = recipe.huber_delta
    left = energies / targets.atom_counts, targets.energies / targets.atom_counts
    if targets.energy_weights is None:
        energy = recipe.energy_weight * huber_loss(*left, delta=delta)
    else:
        each = huber_loss(*left, delta=delta, reduction="none")
        energy = (targets.energy_shares(recipe.energy_weight) * each).sum()
    if targets.free is None and targets.forces_weights is None:
        return energy + recipe.forces_weight * huber_loss(forces, targets.forces, delta=delta)
    each = huber_loss(forces, targets.forces, delta=delta, reduction="none")
    return energy + (targets.force_shares(recipe.forces_weight) * each.sum(1)).sum()
