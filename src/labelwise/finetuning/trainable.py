"""What training needs of a potential beyond its contract: copies, weights, reference energies.

Everything rests on the attribute ``model``, a module with a table of reference energies in
``atomic_energies_fn.atomic_energies`` of shape (elements,) or (heads, elements).
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from labelwise.errors import PotentialError
from labelwise.potentials import Potential
from labelwise.potentials.mace.checkpoint import mace_warnings_silenced
from labelwise.potentials.mace.potential import MacePotential, _absent_paths


def require_trainable(potential: Potential) -> MacePotential:
    """Return the potential if it can be trained.

    Raises:
        PotentialError: its family has no training here.
    """
    if not isinstance(potential, MacePotential):
        raise PotentialError(
            f"{potential.name} is a {type(potential).__name__}; only MACE potentials can be "
            "fine-tuned: use one, or train it with its own program and load the result"
        )
    return potential


def copy_potential(potential: Potential) -> MacePotential:
    """Return a potential with weights of its own, equal to the given one's.

    Raises:
        PotentialError: its family has no training here.
    """
    source = require_trainable(potential)
    with mace_warnings_silenced():
        # Not a deep copy: mace-torch's EmptyParam cannot be copied, but it can be pickled.
        model = pickle.loads(pickle.dumps(source.model))  # noqa: S301  # our own bytes
    return MacePotential(model, name=source.name, head=source.head, cueq=source.cueq)


def with_new_weights(potential: Potential, *, seed: int, scale: float | None) -> MacePotential:
    """Return a potential of the same architecture with weights drawn from a seed.

    Args:
        potential: The architecture, reference energies, type and device.
        seed: Any integer >= 0.
        scale: Factor from the network's output to eV, for instance the root mean square force
            in eV/Å; None keeps the potential's.

    Raises:
        PotentialError: its family has no training here.
    """
    drawn = require_trainable(potential).with_random_weights(seed)
    if scale is not None and hasattr(drawn.model, "scale_shift"):
        drawn.model.scale_shift.scale.fill_(scale)
        drawn.model.scale_shift.shift.zero_()
    return drawn


def trained_weights(potential: MacePotential) -> list[Tensor]:
    """List every weight; only those that symmetry holds at zero are left out."""
    absent = _absent_paths(potential.model)
    return [p for name, p in potential.model.named_parameters() if name not in absent]


def get_reference_energies(potential: MacePotential) -> Float64[np.ndarray, " E"]:
    """Return the atomic reference energies of the head in use, (E,) float64, eV."""
    row: Tensor = _reference_row(potential)
    return row.detach().cpu().double().numpy().copy()


def set_reference_energies(potential: MacePotential, energies: Float64[np.ndarray, " E"]) -> None:
    """Set the atomic reference energies of the head in use, in place: (E,) float64, eV."""
    row = _reference_row(potential)
    row.copy_(torch.from_numpy(energies).to(row))


def _reference_row(potential: MacePotential) -> Tensor:
    """Return the row of the table that belongs to the head in use, not a copy."""
    table: Tensor = potential.model.atomic_energies_fn.atomic_energies
    return table if table.dim() == 1 else table[potential.heads.index(potential.head)]


def interaction_view(potential: Potential) -> MacePotential:
    """Return the potential without its reference energies, sharing every weight.

    Total energies are thousands of eV, of which single precision keeps 1e-4 eV; the
    interaction energy is small and exact to 1e-6 eV. The reference energies are added in
    double precision instead.

    Raises:
        PotentialError: its family has no training here.
    """
    source = require_trainable(potential)
    block = copy.copy(source.model.atomic_energies_fn)
    zeros = torch.zeros_like(block.atomic_energies)
    block.__dict__["_buffers"] = {**block._buffers, "atomic_energies": zeros}
    model = copy.copy(source.model)
    model.__dict__["_modules"] = {**model._modules, "atomic_energies_fn": block}
    flags = [weight.requires_grad for weight in model.parameters()]
    view = MacePotential(model, name=source.name, head=source.head)
    for weight, flag in zip(model.parameters(), flags, strict=True):
        weight.requires_grad_(flag)
    return view


def snapshot(weights: Sequence[Tensor]) -> list[Tensor]:
    """Copy weights."""
    return [weight.detach().clone() for weight in weights]


@torch.no_grad()
def restore(weights: list[Tensor], values: list[Tensor]) -> None:
    """Write values into weights, in place."""
    torch._foreach_copy_(weights, values)
