"""Structures as points in a plane, made of principal components that a run has found."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from labelwise.errors import ArgumentError, MissingDependencyError, check_name
from labelwise.pages.options import MAP_METHODS

_LEAST_FOR_UMAP = 10
_NEIGHBOURS = 15


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of sets of structures.

    Attributes:
        values: Of each set, (n_i, c), by falling variance.
        explained: Share of the variance along each component, (c,).
    """

    values: tuple[Float[np.ndarray, "_ c"], ...]
    explained: Float[np.ndarray, " c"]


@dataclass(frozen=True, eq=False)
class Plane:
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


def map_components(components: Components, *, method: str = "pca", seed: int = 0) -> Plane:
    """Make a plane of components: the first two, or what UMAP makes of all.

    Args:
        components: Of sets of structures on common axes.
        method: ``pca`` or ``umap``.
        seed: Of UMAP, >= 0; equal seeds give equal maps.

    Raises:
        ArgumentError: An unknown method, or too few structures for UMAP.
        MissingDependencyError: UMAP is not installed.
    """
    check_name("method", method, MAP_METHODS)
    if method == "umap":
        return Plane(_embed(_import_umap(), components.values, seed), None)
    share = components.explained
    return Plane(
        tuple(_first_two(values) for values in components.values),
        (float(share[0]), float(share[1]) if len(share) > 1 else 0.0),
    )


def _first_two(values: Float[np.ndarray, "n c"]) -> Float32[np.ndarray, "n 2"]:
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
    umap: Any, values: Sequence[Float[np.ndarray, "_ c"]], seed: int
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
