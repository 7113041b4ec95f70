"""The symmetric contraction for training, to scalars, vectors and beyond, element by element."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.mace.polynomial import MAX_CORRELATION
from labelwise.potentials.mace.training.lean_batch import LeanBatch
from labelwise.potentials.mace.training.polynomial import Phase, Polynomials


class ElementContraction:
    """A ``SymmetricContraction`` of mace-torch, whose weights it reads, as polynomials."""

    def __init__(self, contraction: Any, phase: Phase, scale: float = 1.0) -> None:
        """Symmetrise the couplings; the outputs are multiplied by ``scale``."""
        self._outputs = list(contraction.contractions)
        self._phase = phase
        self._bases = [
            [scale * table for table in symmetric_output_basis(output)] for output in self._outputs
        ]

    def contract(self, batch: LeanBatch, x: Float[Tensor, "L Z C A"]) -> Float[Tensor, "Z C A D"]:
        """Apply it to atoms in rows of one element each (see ``LeanBatch``).

        Returns:
            (Z, C, A, D), D the components of all outputs, one after another.
        """
        shape = x.shape[1:]
        tables: list[Tensor | None] = []
        for output, basis in zip(self._outputs, self._bases, strict=True):
            weights = (*reversed(output.weights), output.weights_max)
            rows = [
                weight.index_select(0, _rows_of(batch, weight))
                .transpose(1, 2)
                .reshape(shape[0] * shape[1], -1)
                for weight in weights
            ]
            tables += _coefficients(basis, rows, len(x))
        out: Tensor = Polynomials.apply(x.flatten(1, 2), self._phase, *tables)  # type: ignore[no-untyped-call]
        return out.view(*shape, -1)


def symmetric_output_basis(contraction: Any) -> list[Float[Tensor, "_ _ dL"]]:
    """Symmetrise the coupling coefficients of one output, and keep one of each pair of orders.

    Args:
        contraction: mace-torch's ``Contraction`` to d components, of correlation three at most.

    Returns:
        For each correlation ν = 1, 2, 3: (K_1, 1, dL), (K_2, L, dL), (K_3, Q, dL), Q the pairs
        in the order of ``torch.triu_indices``, on the device and in the type of the weights.
    """
    weight = contraction.weights_max
    n_components = contraction.U_tensors(1).shape[-2]
    rows, columns = torch.triu_indices(n_components, n_components)
    basis = []
    for order in range(1, contraction.correlation + 1):
        coupling = contraction.U_tensors(order).double().cpu().movedim(-1, 0)
        # A contraction to scalars has no axis for the output's components.
        coupling = coupling.reshape(len(coupling), -1, *[n_components] * order)
        orders = list(permutations(range(2, order + 2)))
        mean = torch.stack([coupling.permute(0, 1, *each) for each in orders]).mean(0)
        mean = mean.movedim(1, -2).flatten(-2)
        if order == 1:
            mean = mean[:, None]
        if order == MAX_CORRELATION:
            twice = torch.where(rows == columns, 1.0, 2.0).to(mean)
            mean = mean[:, rows, columns] * twice[:, None]
        basis.append(mean.to(weight).contiguous())
    return basis


def _coefficients(
    basis: Sequence[Float[Tensor, "_ _ dL"]],
    rows: Sequence[Float[Tensor, "b _"]],
    n_components: int,
) -> list[Tensor | None]:
    """Contract the basis with weights: t1, t2 (zeros without second order), t3 (or None)."""
    tables: list[Tensor | None] = [
        (row @ table.flatten(1)).view(-1, *table.shape[1:])
        for table, row in zip(basis, rows, strict=True)
    ]
    if len(tables) == 1:
        n_rows, size = len(rows[0]), basis[0].shape[2]
        tables.append(basis[0].new_zeros(n_rows, n_components, size))
    return [*tables, *[None] * (MAX_CORRELATION - len(tables))]


def _rows_of(batch: LeanBatch, weight: Float[Tensor, "E K C"]) -> Tensor:
    """Return the place of each row's element in a table, which may hold one for all."""
    return batch.present if len(weight) > 1 else torch.zeros_like(batch.present)
