"""What depends on an atom's element, for all atoms of an element at once.

mace-torch multiplies weights by a one-hot vector of 89 elements for every atom; here atoms are
sorted by element, and each element's own weights are applied to its atoms.

Letters: N atoms, E elements, n atoms of one element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def apply_by_element(
    function: Callable[[Float[Tensor, "n ..."], int], Float[Tensor, "n out"]],
    features: Float[Tensor, "N ..."],
    attributes: Float[Tensor, "N E"],
) -> Float[Tensor, "N out"]:
    """Apply a function of features and element to all atoms of an element at once.

    Args:
        function: Takes the features of atoms, any number of them, and the place of their element.
        features: (N, ...), at least one atom.
        attributes: (N, E) one-hot.

    Returns:
        (N, out), what the function returned, in the order of the atoms.
    """
    species = attributes.argmax(dim=1)
    order = torch.argsort(species, stable=True)
    present, counts = torch.unique_consecutive(species[order], return_counts=True)
    groups = torch.split(features.index_select(0, order), counts.tolist())
    rows = [
        function(group, element) for element, group in zip(present.tolist(), groups, strict=True)
    ]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return torch.cat(rows).index_select(0, back)


def is_linear_by_element(product: Any) -> bool:
    """Tell whether a tensor product with elements is a linear map for each of them.

    So are the skip connections of mace-torch that depend on the element.
    """
    if type(product).__name__ != "FullyConnectedTensorProduct":
        return False
    elements = product.irreps_in2
    return bool(
        len(elements) == 1
        and (elements[0].ir.l, elements[0].ir.p) == (0, 1)
        and product.internal_weights
        and all(ins.connection_mode == "uvw" and ins.has_weight for ins in product.instructions)
    )


class ElementwiseLinear(torch.nn.Module):
    """Stands in for a product that ``is_linear_by_element``, whose weights it reads."""

    def __init__(self, product: Any) -> None:
        """Wrap an e3nn ``FullyConnectedTensorProduct``."""
        super().__init__()
        self.product = product
        self._paths = list(product.instructions)
        self._inputs = [(int(part.mul), int(part.ir.dim)) for part in product.irreps_in1]
        self._outputs = [(int(part.mul), int(part.ir.dim)) for part in product.irreps_out]

    def forward(
        self, features: Float[Tensor, "N d_in"], attributes: Float[Tensor, "N E"]
    ) -> Float[Tensor, "N d_out"]:
        """Map the features of every atom by the weights of its element.

        Args:
            features: (N, d_in), in e3nn's layout.
            attributes: (N, E) one-hot.

        Returns:
            (N, d_out), in e3nn's layout.
        """
        return apply_by_element(self._map, features, attributes)

    def _map(self, features: Float[Tensor, "n d_in"], element: int) -> Float[Tensor, "n d_out"]:
        parts = torch.split(features, [mul * dim for mul, dim in self._inputs], dim=1)
        sums: list[Tensor | None] = [None] * len(self._outputs)
        start = 0
        for path in self._paths:
            mul, dim = self._inputs[path.i_in1]
            size = math.prod(path.path_shape)
            weight = self.product.weight[start : start + size].view(path.path_shape)[:, element]
            start += size
            # The coupling of order l with a scalar is the unit matrix over sqrt(2 l + 1).
            weight = weight * (path.path_weight / math.sqrt(dim))
            rows = parts[path.i_in1].view(-1, mul, dim).transpose(1, 2)
            out, before = rows @ weight, sums[path.i_out]
            sums[path.i_out] = out if before is None else before + out
        return torch.cat(_flatten(sums, self._outputs, features), dim=1)


def _flatten(
    sums: Sequence[Float[Tensor, "n _ _"] | None],
    outputs: Sequence[tuple[int, int]],
    like: Float[Tensor, "n _"],
) -> list[Float[Tensor, "n _"]]:
    """Turn channels outside again; what no path reaches is zero."""
    return [
        like.new_zeros(len(like), mul * dim) if each is None else each.transpose(1, 2).flatten(1)
        for each, (mul, dim) in zip(sums, outputs, strict=True)
    ]
