"""Kernel principal components of sets of structures, such as a map of the pool is made of.

They are found from landmarks: structures drawn at random from all sets. Where there are explicit
features these are centred and projected on the principal directions of the landmarks; other
kernels go by Nyström's extension. In both cases the components of all structures are then turned
so that the first two have the largest variance. Up to ``MOST_LANDMARKS`` structures the result is
that of exact kernel PCA. Memory is linear in the number of structures; no n × n matrix is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.kernels.base import Kernel, chunks
from labelwise.kernels.linear import FeatureKernel
from labelwise.pages.plane import Components

MOST_LANDMARKS = 1000
#: Components of which UMAP makes a plane; the first two are a plane themselves.
N_COMPONENTS = 50
_CHUNK = 4096
_LEAST_SHARE = 1e-12


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
