"""Sets of structures as points in a plane, near where the kernel says that they are alike.

The axes are kernel principal components, found from landmarks: structures drawn at random from
all sets. Where there are explicit features these are centred and projected on the principal
directions of the landmarks; other kernels go by Nyström's extension. In both cases the
components of all structures are then turned so that the first two have the largest variance. Up to
``MOST_LANDMARKS`` structures the result is that of exact kernel PCA. Memory is linear in
the number of structures; no n × n matrix is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from labelwise.errors import ArgumentError, MissingDependencyError, check_name
from labelwise.kernels.base import Kernel, chunks
from labelwise.kernels.linear import FeatureKernel
from labelwise.selection.page.options import MAP_METHODS

MOST_LANDMARKS = 1000
#: Components of which UMAP makes a plane.
N_COMPONENTS = 50
_FOR_A_PLANE = 16
_CHUNK = 4096
_LEAST_SHARE = 1e-12
_LEAST_FOR_UMAP = 10
_NEIGHBOURS = 15


@dataclass(frozen=True)
class KernelMap:
    """Sets of structures in a plane.

    Attributes:
        coordinates: Of each set, in the order given, (n_i, 2), dimensionless.
        explained: Share of the kernel's variance along each of the two axes; None for UMAP.
    """

    coordinates: tuple[Float32[np.ndarray, "_ 2"], ...]
    explained: tuple[float, float] | None

    def label_axes(self) -> tuple[str, str]:
        """Return what stands at the axes."""
        if self.explained is None:
            return "UMAP 1", "UMAP 2"
        first, second = (f"{100 * share:.0f} %" for share in self.explained)
        return f"kernel PC 1 ({first} of the variance)", f"kernel PC 2 ({second} of the variance)"


@dataclass(frozen=True)
class Components:
    """Kernel principal components of sets of structures.

    Attributes:
        values: Of each set, (n_i, c), by falling variance.
        explained: Share of the kernel's variance along each component, (c,).
    """

    values: tuple[Float64[np.ndarray, "_ c"], ...]
    explained: Float64[np.ndarray, " c"]


def map_kernels(kernels: Sequence[Kernel], *, method: str = "pca", seed: int = 0) -> KernelMap:
    """Map sets of structures by common axes.

    Args:
        kernels: Sets that can be paired with one another, (n_i,), dimensionless; they may be empty.
        method: ``pca``, or ``umap`` of the first 50 principal components.
        seed: Of the landmarks and of UMAP, >= 0; equal seeds give equal maps.

    Returns:
        One array of coordinates a kernel. Signs are such that the coordinate of
        largest size is positive.

    Raises:
        ArgumentError: An unknown method, no kernel, kernels that do not belong together, or too
            few structures for UMAP.
        SelectionError: A kernel value is not finite.
        MissingDependencyError: UMAP is not installed.
    """
    check_name("method", method, MAP_METHODS)
    if method == "umap":
        umap = _import_umap()
    n_components = N_COMPONENTS if method == "umap" else _FOR_A_PLANE
    components = find_components(kernels, n_components=n_components, seed=seed)
    if method == "umap":
        return KernelMap(_embed(umap, components.values, seed), None)
    share = components.explained
    return KernelMap(
        tuple(_first_two(values) for values in components.values),
        (float(share[0]), float(share[1]) if len(share) > 1 else 0.0),
    )


def find_components(
    kernels: Sequence[Kernel], *, n_components: int = N_COMPONENTS, seed: int = 0
) -> Components:
    """Find the principal components of sets of structures under their kernel.

    Args:
        kernels: Sets that can be paired with one another, (n_i,); at least one.
        n_components: Components, >= 1; there are fewer where the kernel's rank is lower, but
            at least one.
        seed: Of the landmarks, >= 0.

    Returns:
        The components of all structures, on common axes.

    Raises:
        ArgumentError: No kernel, or kernels that do not belong together.
        SelectionError: A kernel value is not finite.

    Source: Schölkopf, Smola and Müller, Neural Comput. 10 (1998) 1299; landmarks as in
    Williams and Seeger, NIPS 13 (2000) 682.
    """
    if not kernels:
        raise ArgumentError("there is no kernel to map: give at least one")
    sizes = [len(kernel) for kernel in kernels]
    if sum(sizes) == 0:
        return Components(tuple(np.zeros((0, 1)) for _ in kernels), np.zeros(1))
    landmarks = _draw_landmarks(sizes, seed)
    features = [kernel for kernel in kernels if isinstance(kernel, FeatureKernel)]
    if len(features) == len(kernels):
        projected, total = _project_features(features, landmarks, n_components)
    else:
        projected, total = _project_by_landmarks(kernels, landmarks, n_components)
    turned, variance = _turn(projected)
    share = np.clip(variance / total, 0.0, 1.0) if total > 0 else np.zeros(len(variance))
    return Components(tuple(np.split(turned, np.cumsum(sizes)[:-1])), share)


def _draw_landmarks(sizes: Sequence[int], seed: int) -> list[Int64[np.ndarray, " _"]]:
    """Return the places of the landmarks within each set, ascending."""
    n = sum(sizes)
    drawn = np.arange(n)
    if n > MOST_LANDMARKS:
        drawn = np.sort(np.random.default_rng(seed).choice(n, MOST_LANDMARKS, replace=False))
    ends = np.cumsum([0, *sizes])
    return [
        drawn[(drawn >= start) & (drawn < stop)].astype(np.int64) - start
        for start, stop in pairwise(ends.tolist())
    ]


def _project_features(
    kernels: Sequence[FeatureKernel],
    landmarks: Sequence[Int64[np.ndarray, " _"]],
    n_components: int,
) -> tuple[Float64[np.ndarray, "n c"], float]:
    """Return centred features on the landmarks' directions, and the total variance."""
    first = kernels[0]
    n = sum(len(kernel) for kernel in kernels)
    mean = torch.zeros(first.width, dtype=torch.float64, device=first.device)
    for rows in _all_rows(kernels):
        mean += rows.sum(dim=0)
    mean /= n
    parts = [
        kernel.rows(torch.from_numpy(places).to(first.device)).to(torch.float64) - mean
        for kernel, places in zip(kernels, landmarks, strict=True)
        if len(places)
    ]
    _, sizes, directions = torch.linalg.svd(torch.cat(parts), full_matrices=False)
    n_kept = max(1, min(n_components, int((sizes > _LEAST_SHARE * sizes[0]).sum())))
    axes = directions[:n_kept].T.contiguous()
    total = 0.0
    projected = []
    for rows in _all_rows(kernels):
        centred = rows - mean
        total += float(centred.square().sum())
        projected.append((centred @ axes).cpu().numpy())
    return np.concatenate(projected), total / n


def _all_rows(kernels: Sequence[FeatureKernel]) -> Iterator[Float[Tensor, "r d"]]:
    """Go through the rows of all sets in float64, some at a time."""
    for kernel in kernels:
        kernels[0].checked_partner(kernel)
        for part in kernel.chunks(_CHUNK):
            if part.stop > part.start:
                yield kernel.rows(part).to(torch.float64)


def _project_by_landmarks(
    kernels: Sequence[Kernel], landmarks: Sequence[Int64[np.ndarray, " _"]], n_components: int
) -> tuple[Float64[np.ndarray, "n c"], float]:
    """Return Nyström's projections, centred on the landmarks, and the total variance."""
    among = np.concatenate(
        [
            _against(kernel, torch.from_numpy(places), kernels, landmarks)
            for kernel, places in zip(kernels, landmarks, strict=True)
            if len(places)
        ]
    )
    column_means = among.mean(axis=0)
    centred = among - column_means - column_means[:, None] + column_means.mean()
    values, vectors = np.linalg.eigh(0.5 * (centred + centred.T))
    order = np.argsort(values)[::-1][:n_components]
    order = order[values[order] > max(_LEAST_SHARE * values.max(), 0.0)]
    if len(order) == 0:
        return np.zeros((sum(map(len, kernels)), 1)), 0.0
    axes = vectors[:, order] / np.sqrt(values[order])
    projected, mean_of_pairs, mean_of_self = [], 0.0, 0.0
    for kernel in kernels:
        mean_of_self += float(kernel.diagonal64().sum())
        for part in chunks(len(kernel), _CHUNK):
            block = _against(kernel, part, kernels, landmarks)
            mean_of_pairs += float(block.mean(axis=1).sum())
            block -= column_means
            block -= block.mean(axis=1, keepdims=True)
            projected.append(block @ axes)
    n = sum(map(len, kernels))
    return np.concatenate(projected), max(0.0, (mean_of_self - mean_of_pairs) / n)


def _against(
    kernel: Kernel,
    rows: slice | Tensor,
    kernels: Sequence[Kernel],
    landmarks: Sequence[Int64[np.ndarray, " _"]],
) -> Float64[np.ndarray, "r l"]:
    """Return k between some structures and all landmarks."""
    blocks = [
        kernel.block64(rows, other, torch.from_numpy(places)).cpu().numpy()
        for other, places in zip(kernels, landmarks, strict=True)
        if len(places)
    ]
    return np.concatenate(blocks, axis=1)


def _turn(
    projected: Float64[np.ndarray, "n c"],
) -> tuple[Float64[np.ndarray, "n c"], Float64[np.ndarray, " c"]]:
    """Turn components so that they fall in variance, and return that, (c,)."""
    centred = projected - projected.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    turned = centred @ vectors[:, ::-1]
    largest = np.abs(turned).argmax(axis=0)
    signs = np.where(turned[largest, np.arange(turned.shape[1])] < 0, -1.0, 1.0)
    return turned * signs, np.maximum(values[::-1], 0.0)


def _first_two(values: Float64[np.ndarray, "n c"]) -> Float32[np.ndarray, "n 2"]:
    plane = np.zeros((len(values), 2), dtype=np.float32)
    plane[:, : values.shape[1]] = values[:, :2]
    return plane


def _import_umap() -> Any:
    """Return umap-learn's module.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of optional parts that are not needed here
            return import_module("umap")
    except ImportError as error:
        raise MissingDependencyError("umap-learn", "umap", "a map by UMAP") from error


def _embed(
    umap: Any, values: Sequence[Float64[np.ndarray, "_ c"]], seed: int
) -> tuple[Float32[np.ndarray, "_ 2"], ...]:
    """Return the plane that UMAP makes of the components of all sets."""
    joined = np.concatenate(values).astype(np.float32)
    if len(joined) < _LEAST_FOR_UMAP:
        raise ArgumentError(
            f"there are {len(joined)} structures; UMAP needs at least {_LEAST_FOR_UMAP}: take pca"
        )
    neighbours = min(_NEIGHBOURS, len(joined) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and of points without neighbours
        reducer = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1)
        plane = np.asarray(reducer.fit_transform(joined), dtype=np.float32)
    return tuple(np.split(plane, np.cumsum([len(part) for part in values])[:-1]))
