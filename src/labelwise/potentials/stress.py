"""Stress: what energies do under a small homogeneous strain.

With strain ε every position, lattice vector and edge vector r becomes r + r ε. The stress is
σ = (1/V) ∂E/∂ε, symmetrised, positive under tension, as ASE and mace-torch have it. Since edges are
all that energies see, it is also (1/V) Σ r ⊗ ∂E/∂r over the edge vectors r.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.graphs import Batch


def differentiate_with_stress(
    energies_of: Callable[..., Float[Tensor, " n"]], batch: Batch, *, training: bool
) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"], Float[Tensor, "n 3 3"]]:
    """Return energies, forces and stress by plain differentiation.

    Args:
        energies_of: ``TorchPotential.interaction_energies``, or what takes the same.
        batch: n structures, N atoms.
        training: Whether the results are to be differentiated by the weights.

    Returns:
        Energies (n,) in eV, forces (N, 3) in eV/Å and stress (n, 3, 3) in eV/Å³, symmetric, zero
        for a structure without a volume.
    """
    positions = batch.positions.detach().requires_grad_()
    strain = batch.cells.new_zeros(batch.cells.shape).requires_grad_()
    symmetric = (strain + strain.mT) / 2
    of_edge = symmetric[batch.structure_idx[batch.edge_index[0]]]
    strained = replace(
        batch,
        cells=batch.cells + batch.cells @ symmetric,
        shifts=batch.shifts + (batch.shifts[:, None] @ of_edge)[:, 0],
    )
    of_atom = symmetric[batch.structure_idx]
    energies = energies_of(strained, positions=positions + (positions[:, None] @ of_atom)[:, 0])
    if not energies.requires_grad:
        return energies, torch.zeros_like(positions), torch.zeros_like(strain)
    gradient, virials = torch.autograd.grad(
        energies.sum(),
        (positions, strain),
        create_graph=training,
        allow_unused=True,
        materialize_grads=True,
    )
    return energies, -gradient, divide_by_volume(virials, torch.linalg.det(batch.cells).abs())


def divide_by_volume(
    virials: Float[Tensor, "n 3 3"], volumes: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 3"]:
    """Return ∂E/∂ε (n, 3, 3) in eV as stress in eV/Å³: symmetric, zero where there is no volume.

    Args:
        virials: (n, 3, 3) eV.
        volumes: (n,) Å³, 0 for a structure without a cell.
    """
    factors = torch.where(volumes > 0, 0.5 / volumes.clamp(min=1e-6), torch.zeros_like(volumes))
    return (virials + virials.mT) * factors[:, None, None]
