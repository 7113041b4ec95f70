"""Penalties on leaving the start: what a fine-tuning does not need to change, it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.finetuning.networks import PreparedSet
from labelwise.finetuning.recipe import Recipe
from labelwise.potentials.training import TrainingNetwork

#: Gradients that a Fisher information is the mean square of: about as many as the papers' thousand
#: updates can spare the time of.
N_GRADIENTS = 200


class Anchor:
    """w/2 · Σ f (θ − θ0)² over weights θ, as its gradient."""

    def __init__(
        self, weights: Sequence[Tensor], strength: float, stiffness: Sequence[Tensor] | None = None
    ) -> None:
        """Take the weights as they are as θ0.

        Args:
            weights: θ.
            strength: w.
            stiffness: f of each, of the weights' shapes; None for 1.
        """
        self._weights, self._strength, self._stiffness = list(weights), strength, stiffness
        self._start = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add w f (θ − θ0) to the gradients that lie with the weights."""
        pulls = list(torch._foreach_sub(self._weights, self._start))
        if self._stiffness is not None:
            torch._foreach_mul_(pulls, list(self._stiffness))
        gradients = [weight.grad for weight in self._weights]
        torch._foreach_add_(gradients, pulls, alpha=self._strength)  # type: ignore[arg-type]


def estimate_fisher(
    network: TrainingNetwork,
    inputs: PreparedSet,
    weights: Sequence[Tensor],
    recipe: Recipe,
    *,
    seed: int,
) -> list[Tensor]:
    """Estimate the diagonal of the Fisher information of the model's own predictions.

    Within Huber's δ the loss of a structure of n atoms is the negative log-likelihood of labels
    that are the predictions plus normal errors, of precision w_E for the energy per atom and
    w_F / 3n for each component of the forces, up to a constant. Its Fisher information is

        f_i = mean over structures of  w_E (∂(E/n)/∂θ_i)² + w_F / 3n · Σ_c (∂F_c/∂θ_i)²,

    no label enters, and w/2 · Σ f (θ − θ0)² with w = 1 is by how much, to second order and
    without what two weights do together, the structures' mean loss against the start's own
    predictions grows. The sum over components is the mean, over signs z = ±1, of the square of

        g_i = √w_E z_0 ∂(E/n)/∂θ_i + √(w_F / 3n) Σ_c z_c ∂F_c/∂θ_i,

    one gradient each; ``N_GRADIENTS`` are drawn, the structures in turn. Stress and the weights
    of structures of their own are left aside.

    Args:
        network: Of the weights.
        inputs: Structures that the network prepared; labels do not matter.
        weights: (w,) they require gradients.
        recipe: w_E and w_F.
        seed: Order of the structures, and signs.

    Returns:
        (w,) tensors of the weights' shapes, >= 0.

    Source: Kirkpatrick et al., PNAS 114 (2017) 3521, equation 3; why predictions and not labels:
    Kunstner, Balles and Hennig, arXiv:1905.12558.
    """
    rng = np.random.default_rng([seed, 0, 2])
    order = np.tile(rng.permutation(len(inputs)), ceil(N_GRADIENTS / len(inputs)))[:N_GRADIENTS]
    total = [torch.zeros_like(weight) for weight in weights]
    for place in order.tolist():
        signs = rng.integers(2, size=1 + 3 * inputs.n_atoms(place)) * 2.0 - 1.0
        found = signed_gradient(network, inputs.batch([place]), weights, recipe, signs)
        torch._foreach_addcmul_(total, found, found, value=1 / len(order))
    return total


def signed_gradient(
    network: TrainingNetwork,
    single: object,
    weights: Sequence[Tensor],
    recipe: Recipe,
    signs: Float[np.ndarray, " m"],
) -> list[Tensor]:
    """Return g of ``estimate_fisher`` for one structure.

    Args:
        network: Of the weights.
        single: A batch of one structure, n atoms.
        weights: (w,) they require gradients.
        recipe: w_E and w_F.
        signs: (1 + 3n,), z: of the energy, and of the forces' components.

    Returns:
        (w,) tensors of the weights' shapes.
    """
    energies, forces = network.energies_and_forces(single, training=True)
    z = torch.from_numpy(signs).to(energies)
    of_energy = sqrt(recipe.energy_weight) / len(forces)
    of_forces = sqrt(recipe.forces_weight / forces.numel())
    value = of_energy * z[0] * energies.sum() + of_forces * (z[1:] * forces.reshape(-1)).sum()
    return list(
        torch.autograd.grad(value, list(weights), allow_unused=True, materialize_grads=True)
    )
