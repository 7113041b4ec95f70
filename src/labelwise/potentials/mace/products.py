"""The symmetric contraction of MACE, evaluated element by element.

mace-torch contracts the coupling coefficients U with the weights W anew for every atom,
2 L³ K C flops and an intermediate of L² C numbers each (L = 16 spherical components,
K = 23 paths). W depends on the element alone, so here U·W is formed once for each element
that is present and applied to all of its atoms: the same sums in another order, and three
quarters of a forward pass saved. Where the output is a scalar and the weights are constant, it
is a polynomial whose derivatives are known (``mace_polynomial``).

Source: Batatia et al., *MACE*, NeurIPS 2022, equations 10 and 11.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.mace.polynomial import (
    frozen_polynomial,
    is_polynomial,
    polynomial_coefficients,
    symmetric_basis,
)


class ElementwiseContraction(torch.nn.Module):
    """Stands in for ``mace.modules.symmetric_contraction.SymmetricContraction``.

    It owns no weights: it reads those of the module it stands in for, so that training
    that one changes this one, and gradients flow to the same parameters.
    """

    def __init__(self, contraction: Any) -> None:
        """Wrap a ``SymmetricContraction``."""
        super().__init__()
        self.contractions: torch.nn.ModuleList = contraction.contractions
        self._outputs = [_Output(each) for each in self.contractions]

    def forward(
        self, features: Float[Tensor, "N C L"], attributes: Float[Tensor, "N E"]
    ) -> Float[Tensor, "N out"]:
        """Contract the features of every atom with themselves.

        Args:
            features: (N, C, L) floating point.
            attributes: (N, E) one-hot.

        Returns:
            (N, sum of C (2l + 1) over the output irreps).
        """
        species = attributes.argmax(dim=1)
        order = torch.argsort(species, stable=True)
        present, counts = torch.unique_consecutive(species[order], return_counts=True)
        groups = torch.split(features[order], counts.tolist())
        rows = [
            torch.cat([output.contract(group, z) for output in self._outputs], dim=-1)
            for z, group in zip(present.tolist(), groups, strict=True)
        ]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return torch.cat(rows)[back]


class _Output:
    """One output irrep of the contraction."""

    def __init__(self, contraction: Any) -> None:
        self._contraction = contraction
        self._basis: list[Tensor] | None = None
        if is_polynomial(contraction):
            self._basis = symmetric_basis(contraction, contraction.weights_max.device)

    def contract(self, features: Float[Tensor, "n C L"], element: int) -> Float[Tensor, "n out"]:
        """Apply it to atoms of one element, by the polynomial unless weights need gradients."""
        weights = (*reversed(self._contraction.weights), self._contraction.weights_max)
        if self._basis is None or any(weight.requires_grad for weight in weights):
            return _contract_by_horner(self._contraction, features, element)
        tables = polynomial_coefficients(self._basis, [weight[element].T for weight in weights])
        return frozen_polynomial(features.permute(2, 1, 0).contiguous(), *tables).T


def _contract_by_horner(
    contraction: Any, features: Float[Tensor, "n C L"], element: int
) -> Float[Tensor, "n out"]:
    """Apply one output irrep to atoms of one element, differentiable by the weights.

    Horner's scheme: ((T₃ x + T₂) x + T₁) x with T_ν = U_ν W_ν[element].
    """
    x = features.transpose(0, 1)
    n_channels, n_atoms, n_components = x.shape
    weights = (contraction.weights_max, *contraction.weights)
    out: Tensor | None = None
    for i, weight in enumerate(weights):
        coupling = contraction.U_tensors(len(weights) - i)
        table = weight[element].T @ coupling.reshape(-1, coupling.shape[-1]).T
        table = table.view(n_channels, -1, n_components)
        if out is None:
            out = torch.bmm(x, table.transpose(1, 2))
        else:
            partial = out.view(n_channels, n_atoms, -1, n_components) + table[:, None]
            out = (partial * x[:, :, None]).sum(dim=-1)
    assert out is not None  # noqa: S101  # a contraction has at least order one
    return out.transpose(0, 1).reshape(n_atoms, -1)
