"""The symmetric contraction for training, to scalars, vectors and beyond, element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.mace.polynomial import MAX_CORRELATION, symmetric_basis
from labelwise.potentials.mace.training.lean_batch import LeanBatch
from labelwise.potentials.mace.training.polynomial import Phase, Polynomials


class ElementContraction:
    """A ``SymmetricContraction`` of mace-torch, whose weights it reads, as polynomials."""

    def __init__(self, contraction: Any, phase: Phase, scale: float = 1.0) -> None:
        """Symmetrise the couplings; the outputs are multiplied by ``scale``."""
        self._outputs = list(contraction.contractions)
        self._phase = phase
        self._bases = [
            [scale * table for table in symmetric_basis(output, output.weights_max.device)]
            for output in self._outputs
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
