"""Convolutions against e3nn's tensor product and a sum by receiver."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from labelwise.potentials.convolution import NeighbourConvolution, can_convolve

o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")

N_ATOMS = 7
LAYOUTS = {
    "scalars": ("4x0e", "0e + 1o + 2e", 1),
    "one order": ("3x0e + 3x1o", "0e + 1o + 2e + 3o", 1),
    "channels differ": ("5x0e + 3x1e + 2x2e", "0e + 1e + 2e", 2),
    "only scalars come out": ("3x0e + 3x1o", "0e + 1o", 0),
}


def make_product(features: str, harmonics: str, lmax: int, mode: str = "uvu") -> o3.TensorProduct:
    """Return the product that NequIP and MACE build: all paths up to an order, sorted."""
    first, second = o3.Irreps(features), o3.Irreps(harmonics)
    paths = [
        (i, j, mul, ir)
        for i, (mul, left) in enumerate(first)
        for j, (_, right) in enumerate(second)
        for ir in left * right
        if ir.l <= lmax
    ]
    out, place, _ = o3.Irreps([(mul, ir) for _, _, mul, ir in paths]).sort()
    instructions = [(i, j, place[k], mode, True) for k, (i, j, _, _) in enumerate(paths)]
    return o3.TensorProduct(
        first, second, out, instructions, shared_weights=False, internal_weights=False
    )


def sum_by_receiver(product: o3.TensorProduct, inputs: list[Tensor], edges: Tensor) -> Tensor:
    features, harmonics, weights = inputs
    messages = product(features[edges[0]], harmonics, weights)
    total = messages.new_zeros(len(features), messages.shape[1])
    return total.index_add(0, edges[1], messages)


def differentiate_twice(function: object, inputs: list[Tensor]) -> list[Tensor]:
    """Return values, slopes, and slopes of a function of the slopes."""
    value = function(inputs)  # type: ignore[operator]
    first = torch.autograd.grad((value**3).sum(), inputs, create_graph=True)
    total = sum((slope**2).sum() for slope in first)
    return [value, *first, *torch.autograd.grad(total, inputs, materialize_grads=True)]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("crowded", [False, True], ids=["even", "one atom has most neighbours"])
def test_values_and_derivatives_are_those_of_the_product(
    layout: tuple[str, str, int], crowded: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    sender = torch.randint(N_ATOMS - 1, (40,), generator=generator)
    receiver = torch.randint(N_ATOMS - 1, (40,), generator=generator)  # the last atom has none
    if crowded:
        receiver[:-3] = 2
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        product = make_product(*layout)
    finally:
        torch.set_default_dtype(before)
    assert can_convolve(product)
    convolution = NeighbourConvolution(product)
    sizes = (
        (N_ATOMS, product.irreps_in1.dim),
        (40, product.irreps_in2.dim),
        (40, product.weight_numel),
    )
    inputs = [
        torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()
        for size in sizes
    ]
    edges = torch.stack([sender, receiver])

    ours = differentiate_twice(lambda x: convolution(*x, edges), inputs)
    theirs = differentiate_twice(lambda x: sum_by_receiver(product, x, edges), inputs)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            our, their, rtol=1e-10, atol=1e-10 * float(their.detach().abs().max())
        )
    assert not ours[0][-1].any()


def test_no_edges_give_zeros() -> None:
    product = make_product(*LAYOUTS["channels differ"])
    convolution = NeighbourConvolution(product)
    features = torch.ones(N_ATOMS, product.irreps_in1.dim)
    none = torch.zeros(0, product.irreps_in2.dim), torch.zeros(0, product.weight_numel)
    out = convolution(features, *none, torch.zeros(2, 0, dtype=torch.int64))
    assert out.shape == (N_ATOMS, product.irreps_out.dim)
    assert not out.any()


def test_products_of_another_kind_are_left_alone() -> None:
    assert not can_convolve(make_product("4x0e", "4x0e", 0, mode="uuu"))
    assert not can_convolve(o3.FullyConnectedTensorProduct("4x0e", "1x1o", "4x1o"))
    assert not can_convolve(torch.nn.Linear(3, 3))
