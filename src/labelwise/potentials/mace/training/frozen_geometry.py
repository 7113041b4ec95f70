"""What of a structure no update changes: pairs, spherical harmonics, radial basis.

Training moves weights, never atoms. The spherical harmonics Y and the radial basis R of every
pair are therefore constants, and so are their derivatives ∂Y/∂r and ∂R/∂r: forces are
a constant linear map of ∂E/∂Y and ∂E/∂R, and no geometry has to be differentiated, let alone
twice. A pair i, j is stored once, not once per direction: R is the same both ways and Y only
changes the sign of its odd components.

Letters: P pairs, M directed edges, L = (l_max + 1)² components of Y, B radial functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from labelwise.potentials import Graph

#: Directed edges up to which geometry is kept; a pair takes some 350 bytes.
MAX_EDGES = 6_000_000
# Pairs whose repulsion is evaluated at a time, each with the rows of two elements.
_CHUNK = 4096


@dataclass(frozen=True)
class FrozenGeometry:
    """One structure's pairs and what is known about them.

    Attributes:
        species: (n_atoms,) int64, places in ``Potential.elements``.
        ends: (2, P) int64, the two atoms of each pair; the pair's vector runs from the first
            to the second.
        edges: (4, M) int64, for each directed edge: sender, receiver, its pair, and its place
            among the edges of its receiver.
        reversed_: (M,) int64, 1 if the edge runs against its pair's vector, else 0.
        volume: Of the cell, Å³, 0 without one.
        harmonics: (P, L) floating point, dimensionless.
        harmonics_slope: (P, L, 3) floating point, 1/Å.
        radial: (P, B) floating point: the radial basis; then, where the model has them, the
            cutoff function by which it multiplies later, and the pair repulsion in eV.
        radial_slope: (P, B) floating point, 1/Å.
        directions: (P, 3) floating point, unit vectors.
        lengths: (P,) floating point, Å.
    """

    species: Int64[np.ndarray, " n_atoms"]
    ends: Int64[np.ndarray, "2 P"]
    edges: Int64[np.ndarray, "4 M"]
    reversed_: Int64[np.ndarray, " M"]
    volume: float
    harmonics: Float[Tensor, "P L"]
    harmonics_slope: Float[Tensor, "P L 3"]
    radial: Float[Tensor, "P B"]
    radial_slope: Float[Tensor, "P B"]
    directions: Float[Tensor, "P 3"]
    lengths: Float[Tensor, " P"]


def freeze_geometry(model: Any, graphs: Sequence[Graph]) -> list[FrozenGeometry]:
    """Evaluate the geometry of structures once.

    Args:
        model: A MACE module whose radial basis depends on the distance, and on the two
            elements, of a pair.
        graphs: Any number of structures.

    Returns:
        One entry per graph, on the model's device and in its floating-point type.
    """
    if not graphs:
        return []
    pairs = [_find_pairs(graph) for graph in graphs]
    ends = [(graph, first) for graph, (first, _, _) in zip(graphs, pairs, strict=True)]
    vectors = np.concatenate([_pair_vectors(graph, first) for graph, first in ends])
    species = np.concatenate([g.species[g.edge_index[:, first]] for g, first in ends], axis=1)
    tables = _evaluate(model, torch.from_numpy(vectors), torch.from_numpy(species))
    sizes = [len(first) for first, _, _ in pairs]
    parts = zip(*(torch.split(table, sizes) for table in tables), strict=True)
    return [
        _join(graph, pair, part) for graph, pair, part in zip(graphs, pairs, parts, strict=True)
    ]


def _join(
    graph: Graph,
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    tables: tuple[Tensor, ...],
) -> FrozenGeometry:
    first, pair_of_edge, reversed_ = pairs
    sender, receiver = graph.edge_index
    edges = np.stack((sender, receiver, pair_of_edge, _places(receiver, graph.n_atoms)))
    volume = abs(float(np.linalg.det(graph.cell)))
    ends = graph.edge_index[:, first]
    return FrozenGeometry(graph.species, ends, edges, reversed_, volume, *tables)


def _find_pairs(
    graph: Graph,
) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " M"], Int64[np.ndarray, " M"]]:
    """Match every edge with its reverse.

    Returns:
        For each pair the edge that stands for it, for each edge its pair, and for each edge 1
        if it runs the other way.
    """
    sender, receiver = graph.edge_index
    key = np.column_stack((sender, receiver, graph.unit_shifts))
    other = np.column_stack((receiver, sender, -graph.unit_shifts))
    # The direction whose key comes first in lexical order stands for both.
    unequal = key != other
    column = unequal.argmax(axis=1)
    rows = np.arange(len(key))
    reversed_ = (key[rows, column] > other[rows, column]).astype(np.int64)
    canonical = np.where(reversed_[:, None] == 1, other, key)
    _, pair = np.unique(canonical, axis=0, return_inverse=True)
    pair = pair.reshape(-1)
    forward = np.flatnonzero(reversed_ == 0)
    first = np.empty(len(forward), dtype=np.int64)
    first[pair[forward]] = forward
    return first, pair.astype(np.int64), reversed_


def _pair_vectors(graph: Graph, edges: Int64[np.ndarray, " P"]) -> Float64[np.ndarray, "P 3"]:
    sender, receiver = graph.edge_index[:, edges]
    shifts = graph.unit_shifts[edges] @ graph.cell
    vectors: Float64[np.ndarray, "P 3"] = (
        graph.positions[receiver] - graph.positions[sender] + shifts
    )
    return vectors


def _places(receiver: Int64[np.ndarray, " M"], n_atoms: int) -> Int64[np.ndarray, " M"]:
    """Number the edges of each receiver from 0."""
    order = np.argsort(receiver, kind="stable")
    counts = np.bincount(receiver, minlength=n_atoms)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    places = np.empty(len(receiver), dtype=np.int64)
    places[order] = np.arange(len(receiver)) - starts
    return places


def _evaluate(
    model: Any, vectors: Float[Tensor, "P 3"], species: Int64[Tensor, "2 P"]
) -> tuple[Tensor, ...]:
    """Return harmonics, radial functions, the slopes of both, directions and lengths of pairs."""
    weight = model.node_embedding.linear.weight
    dtype, device = weight.dtype, weight.device
    lengths = torch.linalg.norm(vectors, dim=1, keepdim=True)
    directions = vectors / lengths
    harmonics, by_direction = _harmonics(model, directions)
    # Moving the end by dr turns the direction by (1 - u uᵀ) dr / |r|.
    along = (by_direction @ directions[:, :, None]) * directions[:, None, :]
    slope = (by_direction - along) / lengths[:, :, None]
    radial, radial_slope = _radial(
        model, lengths.to(device=device, dtype=dtype), species.to(device)
    )
    tables = [harmonics, slope, radial, radial_slope, directions, lengths[:, 0]]
    return tuple(table.to(device=device, dtype=dtype).contiguous() for table in tables)


def _harmonics(
    model: Any, directions: Float64[Tensor, "P 3"]
) -> tuple[Float64[Tensor, "P L"], Float64[Tensor, "P L 3"]]:
    """Evaluate the harmonics as polynomials Y_l = (Y_{l-1} ⊗ u) M_l, and their derivatives.

    The matrices are found from the module's own values, whatever its order and normalisation.
    """
    l_max = int(model.spherical_harmonics._lmax)
    matrices = _recursion(model, l_max)
    level = torch.full((len(directions), 1), matrices[0].item(), dtype=torch.float64)
    slope = torch.zeros(len(directions), 1, 3, dtype=torch.float64)
    levels, slopes = [level], [slope]
    unit = torch.eye(3, dtype=torch.float64)
    for matrix in matrices[1:]:
        rise = slope[:, :, None, :] * directions[:, None, :, None]
        rise = rise + level[:, :, None, None] * unit
        slope = (rise.flatten(1, 2).transpose(1, 2) @ matrix).transpose(1, 2)
        level = (level[:, :, None] * directions[:, None, :]).flatten(1) @ matrix
        levels.append(level)
        slopes.append(slope)
    return torch.cat(levels, dim=1), torch.cat(slopes, dim=1)


def _recursion(model: Any, l_max: int) -> list[Float64[Tensor, "_ _"]]:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    u = u / torch.linalg.norm(u, dim=1, keepdim=True)
    with torch.no_grad():
        device = model.node_embedding.linear.weight.device
        values = model.spherical_harmonics(u.to(device)).cpu()
    matrices = [values[:1, :1]]
    for order in range(1, l_max + 1):
        below = values[:, (order - 1) ** 2 : order**2]
        products = (below[:, :, None] * u[:, None, :]).flatten(1)
        target = values[:, order**2 : (order + 1) ** 2]
        matrices.append(torch.linalg.pinv(products, rtol=1e-10) @ target)
    return matrices


def _radial(
    model: Any, lengths: Float[Tensor, "P 1"], species: Int64[Tensor, "2 P"]
) -> tuple[Float[Tensor, "P B"], Float[Tensor, "P B"]]:
    """Evaluate the radial functions and their derivatives."""
    elements = torch.eye(len(model.atomic_numbers), dtype=lengths.dtype, device=lengths.device)
    with torch.enable_grad():
        lengths = lengths.detach().requires_grad_()
        basis, cutoff = model.radial_embedding(lengths, elements, species, model.atomic_numbers)
        columns = [*basis.unbind(1)]
        if cutoff is not None:
            columns.append(cutoff[:, 0])
        if hasattr(model, "pair_repulsion_fn"):
            columns.append(_repulsion(model, lengths, elements, species))
        slopes = [
            torch.autograd.grad(column.sum(), lengths, retain_graph=True)[0] for column in columns
        ]
    return torch.stack(columns, dim=1).detach(), torch.cat(slopes, dim=1)


def _repulsion(
    model: Any,
    lengths: Float[Tensor, "P 1"],
    elements: Float[Tensor, "E E"],
    species: Int64[Tensor, "2 P"],
) -> Float[Tensor, " P"]:
    """Return half of each pair's repulsion, what either of its atoms gets."""
    parts = []
    for some, ends in zip(
        torch.split(lengths, _CHUNK), torch.split(species, _CHUNK, dim=1), strict=True
    ):
        # The module adds up by receiver: each pair gets a pair of atoms of its own.
        n_pairs = len(some)
        apart = torch.arange(2 * n_pairs, device=ends.device).view(2, n_pairs)
        atoms = elements[ends.reshape(-1)]
        energies = model.pair_repulsion_fn(some, atoms, apart, model.atomic_numbers)
        parts.append(energies[n_pairs:])
    return torch.cat(parts)
