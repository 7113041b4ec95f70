"""The symmetric contraction of MACE, evaluated element by element.

mace-torch contracts the coupling coefficients U with the weights W anew for every atom,
2 L³ K C flops and an intermediate of L² C numbers each (L = 16 spherical components,
K = 23 paths to a scalar, 51 to a vector). W depends on the element alone, so here U·W is formed
once for each element and applied to all of its atoms: the same sums in another order. Where the
weights are constant, these are polynomials whose derivatives are known
(``labelwise.potentials.mace.polynomial``), and their coefficients are kept for the next batch.

Source: Batatia et al., *MACE*, NeurIPS 2022, equations 10 and 11.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.mace.elements import apply_by_element
from labelwise.potentials.mace.polynomial import (
    frozen_polynomials,
    is_polynomial,
    polynomial_coefficients,
    symmetric_basis,
)

# Numbers that are kept, 128 MiB in single precision. An element takes 5 MiB where 128 channels
# have outputs up to l = 1, and 11 MiB up to l = 2.
_MAX_KEPT = 2**25


class ElementwiseContraction(torch.nn.Module):
    """Stands in for ``mace.modules.symmetric_contraction.SymmetricContraction``.

    It owns no weights: it reads those of the module it stands in for, so that training
    that one changes this one, and gradients flow to the same parameters.
    """

    def __init__(self, contraction: Any) -> None:
        """Wrap a ``SymmetricContraction``."""
        super().__init__()
        self.contractions: torch.nn.ModuleList = contraction.contractions
        self._polynomials = None
        if all(is_polynomial(each) for each in self.contractions):
            self._polynomials = _Polynomials(list(self.contractions))

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
        return apply_by_element(self.contract, features, attributes)

    def contract(self, features: Float[Tensor, "n C L"], element: int) -> Float[Tensor, "n out"]:
        """Contract atoms of one element, by polynomials unless weights need gradients."""
        constant = not any(weight.requires_grad for weight in self.contractions.parameters())
        if self._polynomials is not None and constant:
            return self._polynomials.contract(features, element)
        parts = [_contract_by_horner(each, features, element) for each in self.contractions]
        return torch.cat(parts, dim=-1)


class _Polynomials:
    """All outputs of a contraction as polynomials of constant coefficients."""

    def __init__(self, outputs: list[Any]) -> None:
        self._outputs = outputs
        device = outputs[0].weights_max.device
        self._bases = [symmetric_basis(output, device) for output in outputs]
        self._n_components = int(outputs[0].U_tensors(1).shape[-2])
        self._sizes = [basis[0].shape[2] // self._n_components for basis in self._bases]
        self._kept: OrderedDict[int, tuple[Tensor, tuple[Tensor | None, ...]]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Leave coefficients to whoever unpickles it: they are made again of the weights."""
        return {**vars(self), "_kept": OrderedDict()}

    def contract(self, features: Float[Tensor, "n C L"], element: int) -> Float[Tensor, "n out"]:
        """Contract atoms of one element."""
        x = features.permute(2, 1, 0).contiguous()
        values = frozen_polynomials(x, *self._coefficients(element))
        parts = torch.split(values.transpose(0, 1), self._sizes, dim=2)
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def _coefficients(self, element: int) -> tuple[Any, ...]:
        """Return t1, t2 and t3, outputs side by side, as the weights of an element are now."""
        rows = [
            [weight[element].T for weight in (*reversed(each.weights), each.weights_max)]
            for each in self._outputs
        ]
        now = torch.cat([row.flatten() for of_output in rows for row in of_output])
        if element in self._kept:
            self._kept.move_to_end(element)
            before, tables = self._kept[element]
            if torch.equal(now, before):
                return tables
        by_output = [
            polynomial_coefficients(basis, of_output, self._n_components)
            for basis, of_output in zip(self._bases, rows, strict=True)
        ]
        tables = tuple(
            None if order[0] is None else torch.cat(order, dim=2)
            for order in zip(*by_output, strict=True)
        )
        self._kept[element] = now, tables
        size = sum(table.numel() for table in tables if table is not None)
        while len(self._kept) * size > _MAX_KEPT and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return tables


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
