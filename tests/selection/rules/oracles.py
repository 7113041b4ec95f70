"""Independent implementations that the rules are held against, all in float64."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import LinearKernel

Array = np.ndarray


class RbfKernel(Kernel):
    """exp(-‖x - z‖² / 2ℓ²): a kernel without explicit features."""

    def __init__(self, points: torch.Tensor, length: float = 2.0) -> None:
        self.points = points
        self.length = length

    def __len__(self) -> int:
        return len(self.points)

    def diagonal(self) -> torch.Tensor:
        return torch.ones(len(self.points), dtype=torch.float64)

    def block(self, rows, other, cols) -> torch.Tensor:
        gap = self.points[rows][:, None, :] - other.points[cols][None, :, :]
        return torch.exp(-gap.square().sum(dim=2) / (2.0 * self.length**2))


class PlainLinearKernel(Kernel):
    """xᵀz, without its features being known to the rules."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def diagonal(self) -> torch.Tensor:
        return self.features.square().sum(dim=1)

    def block(self, rows, other, cols) -> torch.Tensor:
        return self.features[rows] @ other.features[cols].T


class TanimotoKernel(Kernel):
    """|a ∩ b| / |a ∪ b| of bit vectors, 1 for two empty ones."""

    def __init__(self, bits: torch.Tensor) -> None:
        self.bits = (bits > 0).to(torch.float32)

    def __len__(self) -> int:
        return len(self.bits)

    def diagonal(self) -> torch.Tensor:
        return torch.ones(len(self.bits))

    def block(self, rows, other, cols) -> torch.Tensor:
        a, b = self.bits[rows], other.bits[cols]
        both = a @ b.T
        either = a.sum(dim=1)[:, None] + b.sum(dim=1)[None, :] - both
        return torch.where(either > 0, both / either.clamp_min(1.0), 1.0)


def gram(a: Kernel, b: Kernel) -> Array:
    """The whole kernel matrix, float64, for small sets only."""
    if isinstance(a, LinearKernel):
        return a.features.double().numpy() @ b.features.double().numpy().T
    return a.block(slice(None), b, slice(None)).double().numpy()


def sq_distances(a: Kernel, b: Kernel) -> Array:
    scale = np.diag(gram(a, a))[:, None] + np.diag(gram(b, b))[None, :]
    return np.maximum(scale - 2.0 * gram(a, b), 0.0)


def brute_lcmd(pool: Kernel, train: Kernel, n_select: int) -> tuple[list[int], list[float]]:
    """LCMD that assigns every structure anew for each pick."""
    to_train, within = sq_distances(pool, train), sq_distances(pool, pool)
    picks: list[int] = []
    scores = []
    for _ in range(n_select):
        to_all = np.concatenate([to_train, within[:, picks]], axis=1)
        nearest, least = to_all.argmin(axis=1), to_all.min(axis=1)
        rest = np.setdiff1d(np.arange(len(pool)), picks)
        weight = {c: least[rest][nearest[rest] == c].sum() for c in set(nearest[rest])}
        members = rest[nearest[rest] == max(weight, key=weight.__getitem__)]
        picks.append(int(members[least[members].argmax()]))
        scores.append(least[picks[-1]])
    return picks, scores


def brute_k_center(pool: Kernel, train: Kernel, n_select: int) -> tuple[list[int], list[float]]:
    to_train, within = sq_distances(pool, train), sq_distances(pool, pool)
    picks: list[int] = []
    scores = []
    for _ in range(n_select):
        least = np.concatenate([to_train, within[:, picks]], axis=1).min(axis=1)
        least[picks] = -1.0
        picks.append(int(least.argmax()))
        scores.append(least[picks[-1]])
    return picks, scores


def kernel_variance(pool: Kernel, train: Kernel, regularisation: float) -> Array:
    """k(x,x) - k_T(x)ᵀ (K_TT + λI)⁻¹ k_T(x) by one dense solve."""
    cross, inner = gram(pool, train), gram(train, train)
    inverse = np.linalg.solve(inner + regularisation * np.eye(len(inner)), cross.T)
    return np.diag(gram(pool, pool)) - np.einsum("ij,ji->i", cross, inverse)


def brute_pv(
    pool: Kernel, train: Kernel, n_select: int, regularisation: float
) -> tuple[list[int], list[float]]:
    """Greedy posterior variance that refits from nothing for each pick."""
    within, to_train, inner = gram(pool, pool), gram(pool, train), gram(train, train)
    picks: list[int] = []
    scores = []
    for _ in range(n_select):
        cross = np.concatenate([to_train, within[:, picks]], axis=1)
        labelled = np.block(
            [[inner, to_train[picks].T], [to_train[picks], within[np.ix_(picks, picks)]]]
        )
        system = labelled + regularisation * np.eye(len(labelled))
        variance = np.diag(within) - np.einsum("ij,ji->i", cross, np.linalg.solve(system, cross.T))
        variance[picks] = -np.inf
        picks.append(int(variance.argmax()))
        scores.append(variance[picks[-1]])
    return picks, scores


def variances_of_fifty_digits(
    pool: torch.Tensor, train: torch.Tensor, regularisation: float, picks: list[int]
) -> list[list[float]]:
    """The variances of what is not picked before each pick, by updates of the whole covariance."""
    with localcontext() as context:
        context.prec = 50
        rows = np.array([[Decimal(v) for v in row] for row in torch.cat([train, pool]).tolist()])
        covariance, n_train = rows @ rows.T, len(train)
        found = []
        for step, z in enumerate([*range(n_train), *(n_train + pick for pick in picks)]):
            if step >= n_train:
                rest = set(range(len(pool))) - set(picks[: step - n_train])
                found.append([float(covariance[n_train + x, n_train + x]) for x in rest])
            column = covariance[:, z] / (covariance[z, z] + Decimal(regularisation))
            covariance = covariance - np.outer(column, covariance[z])
    return found


def bmdal_select(method: str, pool: Kernel, train: Kernel, n_select: int, regularisation: float):
    """The picks of bmdal_reg 3.0.2 on the same features."""
    vars(np).setdefault("Inf", np.inf)  # bmdal_reg 3.0.2 was written for NumPy 1
    pytest.importorskip("bmdal_reg", reason="the oracle bmdal_reg is not installed here")
    from bmdal_reg.bmdal import selection
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.feature_maps import IdentityFeatureMap
    from bmdal_reg.bmdal.features import Features, PrecomputeTransform

    def wrap(kernel):
        x = kernel.features.double()
        data = Features(IdentityFeatureMap(n_features=x.shape[1]), TensorFeatureData(x))
        return PrecomputeTransform(32768)(data)

    with_train = len(train) > 0  # it cannot hold an empty set
    p = wrap(pool)
    t = wrap(train) if with_train else p
    sigma = regularisation**0.5
    if method in ("max-det", "max-diag"):
        posterior = t.posterior_tfm(sigma=sigma, allow_kernel_space_posterior=False)
        p, t = (PrecomputeTransform(32768)(posterior(f)) for f in (p, t))
    build: dict[str, Callable[[], object]] = {
        "lcmd": lambda: selection.LargestClusterMaxDistSelectionMethod(
            p, t, sel_with_train=with_train, verbosity=0
        ),
        "max-dist": lambda: selection.MaxDistSelectionMethod(p, t, verbosity=0),
        "max-det": lambda: selection.MaxDetSelectionMethod(p, t, noise_sigma=sigma, verbosity=0),
        "max-diag": lambda: selection.MaxDiagSelectionMethod(p),
    }
    algorithm = build[method]()
    picks = algorithm.select(n_select).tolist()
    assert algorithm.status is None, algorithm.status
    return picks


def noise(n: int, d: int, seed: int) -> torch.Tensor:
    """Gaussian noise, where no bound spares any work."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


def paths(n: int, d: int, seed: int, n_families: int = 15) -> torch.Tensor:
    """Frames along smooth paths about a common mean, like the features of reactions."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=d)
    start = mean + 0.3 * rng.normal(size=(n_families, d))
    first, second = 0.15 * rng.normal(size=(2, n_families, d))
    family, s = rng.integers(n_families, size=n), rng.random(size=(n, 1))
    frames = start[family] + s * first[family] + np.sin(np.pi * s) * second[family]
    return torch.from_numpy(frames + 0.003 * rng.normal(size=(n, d)))


def split(features: torch.Tensor, n_pool: int, **settings) -> tuple[LinearKernel, LinearKernel]:
    """Pool and labelled kernels of the first n_pool rows and the rest."""
    return LinearKernel(features[:n_pool], **settings), LinearKernel(features[n_pool:], **settings)
