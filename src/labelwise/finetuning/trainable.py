"""What can be fine-tuned, and copies of weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labelwise.errors import PotentialError
from labelwise.potentials import Potential
from labelwise.potentials.torch_potential import TorchPotential


def require_trainable(potential: Potential) -> TorchPotential:
    """Return the potential if it can be trained.

    Raises:
        PotentialError: its family has no training here.
    """
    if not isinstance(potential, TorchPotential):
        raise PotentialError(
            f"{potential.name} is a {type(potential).__name__}; only potentials written in torch "
            f"can be fine-tuned here: {potential.training_advice}"
        )
    return potential


def snapshot(weights: Sequence[Tensor]) -> list[Tensor]:
    """Copy weights."""
    return [weight.detach().clone() for weight in weights]


@torch.no_grad()
def restore(weights: list[Tensor], values: list[Tensor]) -> None:
    """Write values into weights, in place."""
    torch._foreach_copy_(weights, values)
