"""Linear maps by element against e3nn's product with a one-hot vector."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from labelwise.potentials.mace.elements import ElementwiseLinear, is_linear_by_element
from tests.potentials.conftest import variant
from tests.potentials.models import make_mace

_FIRST = "RealAgnosticInteractionBlock"
# Model and layer: from scalars; vectors that end in scalars; a whole message; both parities.
PRODUCTS: dict[str, tuple[dict[str, Any], int]] = {
    "scalars": ({}, 0),
    "vectors": ({"hidden_irreps": "6x0e + 6x1o"}, 1),
    "message": ({"hidden_irreps": "6x0e + 6x1o", "interaction_first": _FIRST}, 0),
    "parities": ({"hidden_irreps": "5x0e + 5x0o + 5x1o"}, 1),
}
SPECIES = [2, 0, 2, 2, 0]


def product_of(name: str) -> Any:
    settings, layer = PRODUCTS[name]
    model: Any = make_mace(**settings)
    return model.interactions[layer].skip_tp


@pytest.mark.parametrize("name", PRODUCTS)
def test_it_is_the_product_with_a_one_hot_vector(name: str) -> None:
    """Values, and first and second derivatives by features and weights."""
    product = product_of(name)
    assert is_linear_by_element(product)
    attributes = torch.eye(3, dtype=torch.float64)[SPECIES]
    start = torch.randn(len(SPECIES), product.irreps_in1.dim, dtype=torch.float64)

    def derivatives(function: Any) -> list[torch.Tensor]:
        x = start.clone().requires_grad_()
        value = function(x, attributes)
        leaves = (x, product.weight)
        first = torch.autograd.grad(value.pow(3).sum(), leaves, create_graph=True)
        along = torch.stack([each.square().sum() for each in first]).sum()
        second = torch.autograd.grad(along, leaves)
        return [value, *first, *second]

    wanted, got = derivatives(product), derivatives(ElementwiseLinear(product))
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_skip_connections_without_elements_are_left_alone() -> None:
    potential: Any = variant("nonlinear")
    for block in potential._view._model.interactions:
        assert not is_linear_by_element(block.skip_tp)
        assert type(block.skip_tp).__name__ == "Linear"
