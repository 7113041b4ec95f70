from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy import sparse

from labelwise.errors import ArgumentError, MissingDependencyError
from labelwise.features.representations import SparseRows
from labelwise.kernels.base import Kernel, SubsetKernel, chunks
from labelwise.kernels.components import MOST_LANDMARKS, find_components
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.sparse import SparseLinearKernel
from labelwise.kernels.stored import StoredKernel
from labelwise.kernels.tanimoto import TanimotoKernel
from labelwise.pages.plane import Plane, map_components


def _features(n: int, d: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.geomspace(3.0, 0.1, d)).astype(np.float32)


class _Rows:
    """Rows that come in pieces of seven, as from disk."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    @property
    def width(self) -> int:
        return self._rows.shape[1]

    def __len__(self) -> int:
        return len(self._rows)

    def pieces(self) -> list[slice]:
        return chunks(len(self), 7) or [slice(0, 0)]

    def read(self, rows: slice) -> np.ndarray:
        return self._rows[rows].copy()

    def gather(self, idx: np.ndarray) -> np.ndarray:
        return self._rows[idx]


def _linear(features: np.ndarray) -> Kernel:
    return LinearKernel(features)


def _subset(features: np.ndarray) -> Kernel:
    return SubsetKernel(LinearKernel(features), torch.arange(len(features)))


def _stored(features: np.ndarray) -> Kernel:
    return StoredKernel(_Rows(LinearKernel(features).features.numpy()))


def _tanimoto(features: np.ndarray) -> Kernel:
    return TanimotoKernel((features > 0).astype(np.uint8))


def _sparse(features: np.ndarray) -> Kernel:
    rows = np.where(features > 0, features, 0).astype(np.float32)
    return SparseLinearKernel(SparseRows(sparse.csr_array(rows)), column_block=4)


KERNELS: dict[str, Callable[[np.ndarray], Kernel]] = {
    "linear": _linear,
    "subset": _subset,
    "stored": _stored,
    "tanimoto": _tanimoto,
    "sparse": _sparse,
}


def _exact(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel PCA of a whole Gram matrix: two coordinates and their shares."""
    n = len(gram)
    centring = np.eye(n) - np.full((n, n), 1.0 / n)
    values, vectors = np.linalg.eigh(centring @ gram @ centring)
    first = vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0))
    return first, values[::-1][:2] / values.sum()


def map_kernels(kernels: Sequence[Kernel], *, method: str = "pca", seed: int = 0) -> Plane:
    return map_components(find_components(kernels, seed=seed), method=method, seed=seed)


def _gram(kernel: Kernel) -> np.ndarray:
    return kernel.block(slice(None), kernel, slice(None)).double().numpy()


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
def test_maps_are_those_of_exact_kernel_pca(make: Callable[[np.ndarray], Kernel]) -> None:
    features = _features(60)
    whole = make(features)
    exact, shares = _exact(_gram(whole))
    found = map_kernels([whole])
    (plane,) = found.coordinates
    signs = np.sign((plane * exact).sum(axis=0))
    np.testing.assert_allclose(plane, exact * signs, atol=2e-5)
    assert found.explained == pytest.approx(tuple(shares), rel=1e-4)
    largest = plane[np.abs(plane).argmax(axis=0), [0, 1]]
    assert (largest > 0).all()


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
def test_sets_lie_on_common_axes(make: Callable[[np.ndarray], Kernel]) -> None:
    features = _features(50)
    if make is _subset:
        parent = LinearKernel(features)
        parts: list[Kernel] = [
            SubsetKernel(parent, torch.arange(start, stop))
            for start, stop in ((0, 11), (11, 11), (11, 50))
        ]
    else:
        parts = [make(features[:11]), make(features[11:11]), make(features[11:])]
    together = map_kernels([make(features)]).coordinates[0]
    apart = map_kernels(parts).coordinates
    assert [len(part) for part in apart] == [11, 0, 39]
    np.testing.assert_allclose(np.concatenate(apart), together, atol=2e-5)


@pytest.mark.parametrize("make", [_linear, _tanimoto])
def test_landmarks_find_the_axes_of_a_large_set(make: Callable[[np.ndarray], Kernel]) -> None:
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(2 * MOST_LANDMARKS, 2)) * (3.0, 1.5)
    noise = rng.normal(size=(len(latent), 40)).astype(np.float32)
    kernel = make((latent @ rng.normal(size=(2, 40)) + noise).astype(np.float32))
    exact, shares = _exact(_gram(kernel))
    found = map_kernels([kernel], seed=3)
    for axis in range(2):
        correlation = np.corrcoef(found.coordinates[0][:, axis], exact[:, axis])[0, 1]
        assert abs(correlation) > 0.99
    assert found.explained == pytest.approx(tuple(shares), rel=0.05)
    again = map_kernels([kernel], seed=3)
    assert np.array_equal(found.coordinates[0], again.coordinates[0])


def test_components_fall_in_variance_and_are_as_many_as_the_rank() -> None:
    found = find_components([LinearKernel(_features(30, d=5), normalise="none")], n_components=20)
    assert found.values[0].shape == (30, 5)
    assert (np.diff(found.explained) <= 0).all()
    assert found.explained.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("make", [_linear, _tanimoto])
def test_structures_that_are_all_alike_lie_in_one_point(
    make: Callable[[np.ndarray], Kernel],
) -> None:
    found = map_kernels([make(np.ones((5, 3), dtype=np.float32))])
    np.testing.assert_allclose(found.coordinates[0], 0.0, atol=1e-6)
    assert found.explained == (0.0, 0.0)


def test_nothing_to_map_is_said_or_empty() -> None:
    empty = map_kernels([LinearKernel(np.zeros((0, 3), dtype=np.float32))])
    assert empty.coordinates[0].shape == (0, 2)
    single = map_kernels([LinearKernel(np.ones((1, 3), dtype=np.float32))])
    assert single.coordinates[0].tolist() == [[0.0, 0.0]]
    with pytest.raises(ArgumentError, match="no kernel"):
        map_kernels([])
    with pytest.raises(ArgumentError, match="allowed are pca, umap"):
        map_kernels([LinearKernel(np.ones((1, 3)))], method="tsne")


def test_kernels_of_two_widths_do_not_belong_together() -> None:
    with pytest.raises(ArgumentError, match="width"):
        map_kernels([LinearKernel(_features(4, d=3)), LinearKernel(_features(4, d=4))])


def test_a_missing_umap_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingDependencyError, match="umap-learn"):
        map_kernels([LinearKernel(_features(20))], method="umap")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not here")
def test_umap_keeps_groups_apart_and_is_the_same_again() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(8)[:3] * 10
    features = np.concatenate([c + rng.normal(size=(20, 8)) for c in centres])
    kernels = [LinearKernel(features[:25]), LinearKernel(features[25:])]
    found = map_kernels(kernels, method="umap", seed=1)
    assert found.explained is None
    assert [part.shape for part in found.coordinates] == [(25, 2), (35, 2)]
    plane = np.concatenate(found.coordinates).reshape(3, 20, 2)
    spread = plane.std(axis=1).max()
    means = plane.mean(axis=1)
    gaps = np.linalg.norm(means[:, None] - means[None], axis=-1)[np.triu_indices(3, 1)]
    assert gaps.min() > 2 * spread
    again = map_kernels(kernels, method="umap", seed=1)
    assert np.array_equal(found.coordinates[0], again.coordinates[0])
    with pytest.raises(ArgumentError, match="at least 10"):
        map_kernels([LinearKernel(features[:5])], method="umap")
