"""Structures with frozen geometry joined into one batch, laid out for matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from labelwise.potentials.mace.training.frozen_geometry import FrozenGeometry
from labelwise.potentials.mace.training.polynomial import Phase
from labelwise.potentials.stress import divide_by_volume

#: A row of atoms costs as much as so many places in it: coefficients are made for each row.
_ROW_COST = 10


@dataclass(frozen=True)
class LeanBatch:
    """A batch of n structures, N atoms, P pairs; Z elements present; L, B as in the geometry.

    Neighbours are laid out in rows of equal width W: sums over neighbours are then matrix
    products. Atoms are also listed element by element in rows of equal length A, so that the
    weights of an element act on all of its atoms at once; ``group`` leads there and ``back``
    leads back (rows that are filled up hold atom 0 and are never read).

    Attributes:
        harmonics: (P, L) floating point.
        harmonics_slope: (P, L, 3) floating point, 1/Å.
        radial: (P, B) floating point.
        radial_slope: (P, B) floating point, 1/Å.
        directions: (P, 3) floating point.
        lengths: (P,) floating point, Å.
        volumes: (n,) floating point, Å³, 0 without a cell.
        ends: (2, P) int64, atoms of each pair.
        neighbours: (N, W) int64, the sender of each place (0 where there is none).
        pairs: (N, W) int64, the pair of each place (0 where there is none).
        signs: (N, W, L) floating point, ±1, and 0 where there is none.
        species: (N,) int64, places in ``Potential.elements``.
        present: (Z,) int64, the element of each row; a frequent one has several rows.
        group: (Z, A) int64, atoms.
        back: (N,) int64, places in ``group``, row after row.
        structure_idx: (N,) int64.
        n_structures: n.
    """

    harmonics: Float[Tensor, "P L"]
    harmonics_slope: Float[Tensor, "P L 3"]
    radial: Float[Tensor, "P B"]
    radial_slope: Float[Tensor, "P B"]
    directions: Float[Tensor, "P 3"]
    lengths: Float[Tensor, " P"]
    volumes: Float[Tensor, " n"]
    ends: Int64[Tensor, "2 P"]
    neighbours: Int64[Tensor, "N W"]
    pairs: Int64[Tensor, "N W"]
    signs: Float[Tensor, "N W L"]
    species: Int64[Tensor, " N"]
    present: Int64[Tensor, " Z"]
    group: Int64[Tensor, "Z A"]
    back: Int64[Tensor, " N"]
    structure_idx: Int64[Tensor, " N"]
    n_structures: int | torch.SymInt


def join(geometries: Sequence[FrozenGeometry]) -> LeanBatch:
    """Join structures into one batch, in order.

    Args:
        geometries: At least one.

    Returns:
        The batch, on the structures' device.
    """
    device = geometries[0].harmonics.device
    n_atoms = np.array([len(g.species) for g in geometries])
    n_pairs = np.array([g.ends.shape[1] for g in geometries])
    atom0, pair0 = np.cumsum(n_atoms) - n_atoms, np.cumsum(n_pairs) - n_pairs
    neighbours, pairs, signs = _lay_out(geometries, int(n_atoms.sum()), atom0, pair0)
    species = np.concatenate([g.species for g in geometries])
    present, group, back = _group_by_element(species)
    ends = np.concatenate([g.ends + a for g, a in zip(geometries, atom0, strict=True)], axis=1)
    ends = np.ascontiguousarray(ends) if ends.shape[1] > 0 else np.zeros((2, 1), dtype=np.int64)

    def send(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    def cat(name: str) -> Tensor:
        parts: list[Tensor] = [getattr(g, name) for g in geometries]
        if len(parts) == 1 and len(parts[0]) > 0:
            return parts[0]
        joined = torch.cat(parts)
        # Free atoms alone: one pair of zeros, so that the places filled up have something to hold.
        return joined if len(joined) > 0 else joined.new_zeros(1, *joined.shape[1:])

    harmonics = cat("harmonics")
    return LeanBatch(
        harmonics=harmonics,
        harmonics_slope=cat("harmonics_slope"),
        radial=cat("radial"),
        radial_slope=cat("radial_slope"),
        directions=cat("directions"),
        lengths=cat("lengths"),
        volumes=harmonics.new_tensor([g.volume for g in geometries]),
        ends=send(ends),
        neighbours=send(neighbours),
        pairs=send(pairs),
        signs=send(signs).to(harmonics.dtype),
        species=send(species),
        present=send(present),
        group=send(group),
        back=send(back),
        structure_idx=send(np.repeat(np.arange(len(geometries)), n_atoms)),
        n_structures=len(geometries),
    )


def differentiate(
    batch: LeanBatch,
    energies: Float[Tensor, " n"],
    harmonics: Float[Tensor, "P L"],
    radial: Float[Tensor, "P B"],
    phase: Phase,
    *,
    training: bool,
) -> Float[Tensor, "P 3"]:
    """Return ∂E/∂r for the vector r of each pair, by the chain rule through its geometry.

    Args:
        batch: n structures, P pairs.
        energies: (n,), made of the next two.
        harmonics: (P, L), the batch's, to be differentiated by.
        radial: (P, B), the batch's, to be differentiated by.
        phase: What the network's functions look at; it is the forces' pass meanwhile.
        training: Whether the result is to be differentiated by the weights.

    Returns:
        (P, 3) in eV/Å, of which ``forces_of`` and ``stresses_of`` are linear functions.
    """
    phase.weights = False
    try:
        by_harmonics, by_radial = torch.autograd.grad(
            energies.sum(),
            (harmonics, radial),
            create_graph=training,
            allow_unused=True,
            materialize_grads=True,
        )
    finally:
        phase.weights = True
    along = (by_radial * batch.radial_slope).sum(1, keepdim=True) * batch.directions
    return (by_harmonics[:, None, :] @ batch.harmonics_slope).squeeze(1) + along


def forces_of(batch: LeanBatch, slopes: Float[Tensor, "P 3"]) -> Float[Tensor, "N 3"]:
    """Return the forces that pairs exert on their ends.

    Args:
        batch: N atoms, P pairs.
        slopes: (P, 3) eV/Å, ∂E/∂r of each pair.

    Returns:
        (N, 3) in eV/Å.
    """
    forces = slopes.new_zeros(batch.species.shape[0], 3)
    forces = forces.index_add(0, batch.ends[0], slopes)
    return forces.index_add(0, batch.ends[1], slopes, alpha=-1)


def stresses_of(batch: LeanBatch, slopes: Float[Tensor, "P 3"]) -> Float[Tensor, "n 3 3"]:
    """Return the stress (1/V) Σ r ⊗ ∂E/∂r.

    Args:
        batch: n structures, P pairs.
        slopes: (P, 3) eV/Å, ∂E/∂r of each pair.

    Returns:
        (n, 3, 3) in eV/Å³, zero for a structure without a volume.
    """
    vectors = batch.directions * batch.lengths[:, None]
    virials = slopes.new_zeros(batch.volumes.shape[0], 3, 3).index_add(
        0,
        batch.structure_idx.index_select(0, batch.ends[0]),
        vectors[:, :, None] * slopes[:, None, :],
    )
    return divide_by_volume(virials, batch.volumes)


def _lay_out(
    geometries: Sequence[FrozenGeometry],
    n_atoms: int,
    atom0: Int64[np.ndarray, " n"],
    pair0: Int64[np.ndarray, " n"],
) -> tuple[Int64[np.ndarray, "N W"], Int64[np.ndarray, "N W"], Float64[np.ndarray, "N W L"]]:
    """Lay the neighbours of every atom out in rows of equal width."""
    shifts = [
        np.array([[a], [a], [p], [0]], dtype=np.int64) for a, p in zip(atom0, pair0, strict=True)
    ]
    edges = [g.edges + shift for g, shift in zip(geometries, shifts, strict=True)]
    sender, receiver, pair, place = np.concatenate(edges, axis=1)
    width = int(place.max(initial=0)) + 1
    target = receiver * width + place
    neighbours = np.zeros(n_atoms * width, dtype=np.int64)
    pairs = np.zeros(n_atoms * width, dtype=np.int64)
    neighbours[target], pairs[target] = sender, pair
    n_components = geometries[0].harmonics.shape[1]
    order = np.floor(np.sqrt(np.arange(n_components))).astype(np.int64)
    against = np.concatenate([g.reversed_ for g in geometries])
    signs = np.zeros((n_atoms * width, n_components))
    signs[target] = np.where((against[:, None] * order) % 2 == 1, -1.0, 1.0)
    shape = (n_atoms, width)
    return neighbours.reshape(shape), pairs.reshape(shape), signs.reshape(*shape, n_components)


def _group_by_element(
    species: Int64[np.ndarray, " N"],
) -> tuple[Int64[np.ndarray, " Z"], Int64[np.ndarray, "Z A"], Int64[np.ndarray, " N"]]:
    """List the atoms of each element in rows of equal length, and where each atom went.

    Organic molecules are half hydrogen: rows as long as the most frequent element would be half
    empty, so frequent elements take several rows.
    """
    elements, element, counts = np.unique(species, return_inverse=True, return_counts=True)
    length = _row_length(counts)
    n_rows = -(-counts // length)
    order = np.argsort(element, kind="stable")
    starts, row0 = np.cumsum(counts) - counts, np.cumsum(n_rows) - n_rows
    sorted_element = element[order]
    place = row0[sorted_element] * length + np.arange(len(species)) - starts[sorted_element]
    group = np.zeros(int(n_rows.sum()) * length, dtype=np.int64)
    group[place] = order
    back = np.empty(len(species), dtype=np.int64)
    back[order] = place
    return np.repeat(elements, n_rows), group.reshape(-1, length), back


def _row_length(counts: Int64[np.ndarray, " elements"]) -> int:
    """Return the length of rows at which computing is cheapest."""
    lengths = np.arange(1, int(counts.max()) + 1)
    n_rows = (-(-counts[:, None] // lengths)).sum(0)
    return int(lengths[(n_rows * (lengths + _ROW_COST)).argmin()])
