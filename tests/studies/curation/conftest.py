from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import LinearKernel
from tests.selection.rules.oracles import RbfKernel


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def clustered_points(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Points around a few centres of unequal sizes, with two exact copies."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, d))
    points = centres[np.minimum(rng.geometric(0.4, size=n) - 1, 4)]
    points = points + 0.2 * rng.normal(size=(n, d))
    points[n // 2] = points[0]
    return torch.from_numpy(points)


@pytest.fixture(params=["linear", "wide", "cosine float32", "rbf"])
def any_kernel(request: pytest.FixtureRequest) -> Kernel:
    """Features with d < n and d > n, in single precision, and none at all."""
    if request.param == "rbf":
        return RbfKernel(clustered_points(60, 3))
    if request.param == "cosine float32":
        return LinearKernel(clustered_points(60, 7).to(torch.float32))
    return LinearKernel(
        clustered_points(60, 80 if request.param == "wide" else 7), normalise="none"
    )


def gram(kernel: Kernel) -> np.ndarray:
    """The whole matrix, which only tests may make."""
    if isinstance(kernel, LinearKernel):
        phi = kernel.features.to(torch.float64)
        return (phi @ phi.T).numpy()
    return kernel.block(slice(None), kernel, slice(None)).numpy()


def distances(kernel: Kernel) -> np.ndarray:
    values = gram(kernel)
    own = np.diag(values)
    square = own[:, None] + own[None, :] - 2 * values
    return np.sqrt(np.where(square < 1e-13, 0.0, square))
