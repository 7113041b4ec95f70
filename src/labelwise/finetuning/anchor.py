"""Penalties on leaving the start: what a fine-tuning does not need to change, it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labelwise.finetuning.networks import PreparedSet
from labelwise.finetuning.recipe import Recipe

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
    inputs: PreparedSet,
    has_stress: Bool[np.ndarray, " n"],
    weights: Sequence[Tensor],
    recipe: Recipe,
    *,
    seed: int,
) -> list[Tensor]:
    """Estimate the diagonal of the Fisher information of the model's own predictions.

    Within Huber's δ the loss of a structure of n atoms is the negative log-likelihood of labels
    that are the predictions plus normal errors, of precision w_E for the energy per atom and
    w_F / 3n for each component of the forces and, where stress counts, w_S / 9 for each of the
    stress, up to a constant. Its Fisher information is

        f_i = mean over structures of
              w_E (∂(E/n)/∂θ_i)² + w_F / 3n · Σ_c (∂F_c/∂θ_i)² + w_S / 9 · Σ_c (∂σ_c/∂θ_i)²,

    no value of a label enters, and w/2 · Σ f (θ − θ0)² with w = 1 is by how much, to second order
    and without what two weights do together, the structures' mean loss against the start's own
    predictions grows. The sum over components is the mean, over signs z = ±1, of the square of

        g_i = √w_E z_0 ∂(E/n)/∂θ_i
              + √(w_F / 3n) Σ_c z_c ∂F_c/∂θ_i + √(w_S / 9) Σ_c z_c ∂σ_c/∂θ_i,

    one gradient each; ``N_GRADIENTS`` are drawn, the structures in turn. The weights of
    structures of their own are left aside.

    Args:
        inputs: n structures, prepared by a network of the weights.
        has_stress: (n,), whose stress counts, because it has a label.
        weights: (w,) they require gradients.
        recipe: w_E, w_F and w_S.
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
        n_terms = 1 + 3 * inputs.n_atoms(place)
        if has_stress[place] and recipe.stress_weight > 0:
            n_terms += 9
        signs = rng.integers(2, size=n_terms) * 2.0 - 1.0
        found = signed_gradient(inputs, place, weights, recipe, signs)
        torch._foreach_addcmul_(total, found, found, value=1 / len(order))
    return total


def signed_gradient(
    inputs: PreparedSet,
    place: int,
    weights: Sequence[Tensor],
    recipe: Recipe,
    signs: Float[np.ndarray, " m"],
) -> list[Tensor]:
    """Return g of ``estimate_fisher`` for one structure.

    Args:
        inputs: Structures, prepared by a network of the weights.
        place: Which of them, n atoms.
        weights: (w,) they require gradients.
        recipe: w_E, w_F and w_S.
        signs: (1 + 3n,), z: of the energy, and of the forces' components; (10 + 3n,) with those
            of the stress, if it counts.

    Returns:
        (w,) tensors of the weights' shapes.
    """
    n = inputs.n_atoms(place)
    energies, forces, stresses = inputs.evaluate(
        inputs.batch([place]), training=True, stress=len(signs) > 1 + 3 * n
    )
    z = torch.from_numpy(signs).to(energies)
    value = sqrt(recipe.energy_weight) / n * z[0] * energies.sum()
    terms = z[1 : 1 + 3 * n] * forces.reshape(-1)
    value = value + sqrt(recipe.forces_weight / (3 * n)) * terms.sum()
    if stresses is not None:
        of_stress = sqrt(recipe.stress_weight / 9)
        value = value + of_stress * (z[1 + 3 * n :] * stresses.reshape(-1)).sum()
    return list(
        torch.autograd.grad(value, list(weights), allow_unused=True, materialize_grads=True)
    )
