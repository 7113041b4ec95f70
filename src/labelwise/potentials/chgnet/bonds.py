"""Bonds and angles of a batch, as CHGNet counts them.

A bond is a pair of atoms (or images) within the cutoff: two directed edges. An angle is an ordered
pair of different edges at one atom, both shorter than a second cutoff; an atom with k short edges
has k(k − 1) of them.

Source: Deng et al., Nat. Mach. Intell. 5 (2023) 1031.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from labelwise.potentials.graphs import Batch


@dataclass(frozen=True, slots=True)
class BondGraph:
    """Which edges are one bond, and which meet in an angle: M edges, B bonds, A angles.

    Attributes:
        centre: (M,), the atom that each edge begins at.
        neighbour: (M,), the atom that it ends at.
        bond_of_edge: (M,), the bond that it belongs to.
        edge_of_bond: (B,), one edge of each bond.
        has_angles: (B,), whether the bond's structure has angles at all.
        first: (A,), the first edge of each angle.
        second: (A,), the second.
        short_bonds: (S,), the bonds that take part in angles.
        first_short: (A,), the first edge's place among the short bonds.
        second_short: (A,), the second edge's.
    """

    centre: Int64[Tensor, " M"]
    neighbour: Int64[Tensor, " M"]
    bond_of_edge: Int64[Tensor, " M"]
    edge_of_bond: Int64[Tensor, " B"]
    has_angles: Bool[Tensor, " B"]
    first: Int64[Tensor, " A"]
    second: Int64[Tensor, " A"]
    short_bonds: Int64[Tensor, " S"]
    first_short: Int64[Tensor, " A"]
    second_short: Int64[Tensor, " A"]


def build_bond_graph(batch: Batch, lengths: Float[Tensor, " M"], cutoff: float) -> BondGraph:
    """Find the bonds and the angles of a batch.

    Args:
        batch: M directed edges.
        lengths: (M,) of the edges, Å.
        cutoff: Å; both edges of an angle are shorter.
    """
    centre, neighbour = batch.edge_index
    bond_of_edge, edge_of_bond = join_edges(batch)
    first, second = pair_edges(centre, lengths, cutoff)
    short_bonds, places = torch.unique(
        bond_of_edge[torch.stack((first, second))], return_inverse=True
    )
    structures = batch.structure_idx[centre]
    is_bent = torch.zeros(batch.n_structures, dtype=torch.bool, device=centre.device)
    is_bent[structures[first]] = True
    return BondGraph(
        centre=centre,
        neighbour=neighbour,
        bond_of_edge=bond_of_edge,
        edge_of_bond=edge_of_bond,
        has_angles=is_bent[structures[edge_of_bond]],
        first=first,
        second=second,
        short_bonds=short_bonds,
        first_short=places[0],
        second_short=places[1],
    )


def join_edges(batch: Batch) -> tuple[Int64[Tensor, " M"], Int64[Tensor, " B"]]:
    """Find the bonds of a batch.

    An edge without its counterpart, which rounding may leave at the cutoff, is a bond by itself.

    Args:
        batch: M directed edges.

    Returns:
        The bond (M,) of each edge, and for each of the B bonds one of its edges (B,).
    """
    sender, receiver = batch.edge_index
    image = batch.unit_shifts.round().long()
    span = 2 * int(image.abs().max()) + 1 if len(image) else 1
    # One number for an image; its negative is the opposite image.
    code = (image[:, 0] * span + image[:, 1]) * span + image[:, 2]
    is_turned = (sender > receiver) | ((sender == receiver) & (code < 0))
    low, high = torch.minimum(sender, receiver), torch.maximum(sender, receiver)
    key = (low * batch.n_atoms + high) * span**3 + torch.where(is_turned, -code, code)
    bonds, bond_of_edge = torch.unique(key, return_inverse=True)
    edges = torch.arange(len(key), device=key.device)
    edge_of_bond = edges.new_full((len(bonds),), len(key))
    return bond_of_edge, edge_of_bond.scatter_reduce(0, bond_of_edge, edges, "amin")


def pair_edges(
    centres: Int64[Tensor, " M"], lengths: Float[Tensor, " M"], cutoff: float
) -> tuple[Int64[Tensor, " A"], Int64[Tensor, " A"]]:
    """Find the angles between edges.

    Args:
        centres: (M,), the atom that each edge begins at.
        lengths: (M,), Å.
        cutoff: Å; both edges of an angle are shorter.

    Returns:
        First and second edge of each of the A angles.
    """
    (short,) = torch.nonzero(lengths < cutoff, as_tuple=True)
    short = short[torch.argsort(centres[short], stable=True)]
    _, atoms, counts = torch.unique_consecutive(
        centres[short], return_inverse=True, return_counts=True
    )
    # Edge i, of an atom with k, meets the k edges from the atom's first one on.
    first = torch.repeat_interleave(counts[atoms])
    ends = torch.cumsum(counts[atoms], 0)
    within = torch.arange(len(first), device=first.device) - (ends - counts[atoms])[first]
    second = (torch.cumsum(counts, 0) - counts)[atoms[first]] + within
    differ = first != second
    return short[first[differ]], short[second[differ]]
