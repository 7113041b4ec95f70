from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError, SelectionError
from labelwise.kernels.base import Kernel, SubsetKernel
from labelwise.kernels.linear import LinearKernel
from tests.selection.rules.oracles import RbfKernel, noise


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 30),
    d=st.integers(1, 20),
    log_scale=st.floats(-6, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_cosine_kernel_is_the_cosine(seed, n, d, log_scale, dtype):
    features = (noise(n, d, seed) * 10.0**log_scale).to(dtype)
    kernel = LinearKernel(features)
    unit = features.double().numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    tolerance = 8 * torch.finfo(dtype).eps
    np.testing.assert_allclose(
        kernel.block(slice(None), kernel, slice(None)).double().numpy(),
        unit @ unit.T,
        atol=tolerance * 4,
    )
    np.testing.assert_allclose(kernel.diagonal().numpy(), np.ones(n), atol=tolerance)


def test_unnormalised_kernel_is_the_inner_product():
    features = noise(7, 3, 0)
    kernel = LinearKernel(features, normalise="none")
    rows, cols = torch.tensor([5, 0]), slice(2, 6)
    expected = features[rows] @ features[cols].T
    torch.testing.assert_close(kernel.block(rows, kernel, cols), expected)
    torch.testing.assert_close(kernel.diagonal(), features.square().sum(dim=1))


def test_zero_vectors_stay_zero():
    kernel = LinearKernel(torch.zeros(3, 4))
    assert torch.equal(kernel.features, torch.zeros(3, 4))
    assert torch.equal(kernel.diagonal(), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("normalise", ["cosine", "none"])
def test_nobody_can_corrupt_the_kernel(normalise):
    """A caller's write into a returned tensor, and ours into the caller's, go nowhere."""
    features = noise(9, 4, 1)
    before = features.clone()
    kernel = LinearKernel(features, normalise=normalise)
    diagonal, column = kernel.diagonal(), kernel.block(slice(None), kernel, torch.tensor([2]))
    expected = diagonal.clone(), column.clone()
    diagonal.fill_(-1.0)
    column.fill_(-1.0)
    torch.testing.assert_close(kernel.diagonal(), expected[0], rtol=0, atol=0)
    torch.testing.assert_close(kernel.block(slice(None), kernel, torch.tensor([2])), expected[1])
    assert torch.equal(features, before)


def test_diagonal64_is_the_callers_own():
    class Careless(RbfKernel):
        def __init__(self, points):
            super().__init__(points)
            self.kept = torch.ones(len(points), dtype=torch.float64)

        def diagonal(self):
            return self.kept

    kernel = Careless(noise(5, 2, 0))
    kernel.diagonal64().fill_(7.0)
    assert torch.equal(kernel.kept, torch.ones(5, dtype=torch.float64))


def test_block64_multiplies_float32_features_exactly():
    features = noise(40, 500, 2).float()
    kernel = LinearKernel(features, normalise="none")
    exact = features.double() @ features.double().T
    torch.testing.assert_close(
        kernel.block64(slice(None), kernel, slice(None)), exact, rtol=0, atol=1e-12
    )
    single = kernel.block(slice(None), kernel, slice(None)).double()
    norms = kernel.diagonal().sqrt()
    error = ((single - exact).abs() / (norms[:, None] * norms[None, :])).max()
    assert 0.0 < float(error) < 0.1 * kernel.rounding


def test_reduced_precision_products_widen_the_bound():
    kernel = LinearKernel(noise(4, 16, 0).float())
    usual = kernel.rounding
    torch.set_float32_matmul_precision("medium")
    try:
        assert kernel.rounding > 1000 * usual
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("features", "settings", "message"),
    [
        (torch.zeros(3), {}, r"shape \(3,\): allowed is \(n, d\)"),
        (torch.zeros(3, 0), {}, r"shape \(3, 0\)"),
        (torch.zeros(3, 2, dtype=torch.int64), {}, "convert them to float32 or float64"),
        (torch.zeros(3, 2, dtype=torch.float16), {}, "allowed are float32 and float64"),
        (torch.zeros(3, 2), {"normalise": "l2"}, "allowed are 'cosine' and 'none'"),
        (torch.tensor([[0.0], [torch.nan]]), {}, "structure 1 are not finite"),
        (torch.tensor([[torch.inf], [0.0]]), {}, "structure 0 are not finite"),
        (torch.tensor([[0.0], [1e30]]), {}, "structure 1 exceed .* rescale, or use float64"),
    ],
)
def test_unfit_features_are_refused(features, settings, message):
    with pytest.raises(ArgumentError, match=message):
        LinearKernel(features, **settings)


def test_bad_row_is_named_beyond_the_first_chunk():
    features = torch.zeros(70_000, 8)
    features[69_123, 3] = torch.nan
    with pytest.raises(ArgumentError, match="structure 69123 "):
        LinearKernel(features)


def test_read_only_arrays_and_gradients_are_taken():
    array = noise(5, 3, 0).numpy()
    array.setflags(write=False)
    torch.testing.assert_close(
        LinearKernel(array).features, LinearKernel(noise(5, 3, 0).requires_grad_()).features
    )
    assert not LinearKernel(noise(5, 3, 0).requires_grad_()).features.requires_grad


def test_dtype_and_device_are_kept_or_changed():
    features = noise(5, 3, 0)
    assert LinearKernel(features).dtype == torch.float64
    changed = LinearKernel(features, dtype=torch.float32, device="cpu")
    assert (changed.dtype, changed.device) == (torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (LinearKernel(noise(4, 6, 0)), "width: 5 and 6"),
        (LinearKernel(noise(4, 5, 0).float()), "dtype"),
        (LinearKernel(noise(4, 5, 0), normalise="none"), "normalise: cosine and none"),
    ],
)
def test_kernels_that_do_not_match_are_refused(other, name):
    kernel = LinearKernel(noise(4, 5, 0))
    with pytest.raises(ArgumentError, match=f"differ in {name}"):
        kernel.block(slice(None), other, slice(None))


@pytest.mark.parametrize("make", [LinearKernel, RbfKernel])
def test_part_of_a_kernel(make):
    whole = make(noise(12, 4, 3))
    idx = torch.tensor([7, 1, 4])
    part = whole.take(idx)
    assert isinstance(part, Kernel)
    assert len(part) == 3
    torch.testing.assert_close(part.diagonal(), whole.diagonal()[idx])
    full = whole.block(slice(None), whole, slice(None))
    torch.testing.assert_close(
        part.block(slice(None), whole, torch.tensor([0, 5])), full[idx][:, [0, 5]]
    )
    torch.testing.assert_close(
        part.block(torch.tensor([2]), part, slice(0, 2)), full[[4]][:, [7, 1]]
    )


def test_part_of_a_kernel_without_features_is_a_view():
    assert isinstance(RbfKernel(noise(4, 2, 0)).take(torch.tensor([0])), SubsetKernel)


@pytest.mark.parametrize("make", [LinearKernel, RbfKernel])
def test_mean_similarity_is_the_mean_of_rows(make):
    kernel = make(noise(31, 5, 4))
    full = kernel.block(slice(None), kernel, slice(None)).double()
    torch.testing.assert_close(kernel.mean_similarity(7), full.mean(dim=1))


def test_non_finite_and_negative_values_are_refused():
    points = noise(4, 2, 0)
    points[1, 0] = torch.inf
    with pytest.raises(
        SelectionError, match=r"RbfKernel\.block returned a value that is not finite"
    ):
        RbfKernel(points).block64(slice(None), RbfKernel(points), slice(None))

    class Negative(RbfKernel):
        def diagonal(self):
            return -torch.ones(len(self), dtype=torch.float64)

    with pytest.raises(
        SelectionError, match=r"Negative\.diagonal returned a value that is negative"
    ):
        Negative(points).diagonal64()
