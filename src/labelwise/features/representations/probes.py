"""Directions along which the forces of a batch are probed.

A direction is one vector for every atom, (N, 3), and serves all structures of a batch at once.
Unit directions give every row of the force Jacobian, random signs an unbiased estimate of its
Gram matrix, radial fields a few invariant contractions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.features.representations.sketch import hash_integers
from labelwise.potentials.graphs import Batch

# Places of the hash that belong to one probe: more than any structure has components.
_STRIDE = 2**40


def unit_directions(batch: Batch) -> Iterator[Float[Tensor, "N 3"]]:
    """Yield e_jα for each atom j of the largest structure and each axis α.

    In the other structures it is their own atom j; those that have fewer atoms get zeros.

    Args:
        batch: n structures, the largest of m atoms.

    Yields:
        3m directions, axes fastest.
    """
    starts, counts = _starts(batch), torch.tensor(batch.atom_counts)
    for atom in range(max(batch.atom_counts)):
        rows = (starts + atom)[counts > atom].to(batch.positions.device)
        for axis in range(3):
            direction = torch.zeros_like(batch.positions)
            direction[rows, axis] = 1.0
            yield direction


def rademacher_directions(
    batch: Batch, n_probes: int, *, seed: int = 0
) -> Iterator[Float[Tensor, "N 3"]]:
    """Yield random signs, v with E[v vᵀ] = I.

    A sign depends on seed, probe, place of the atom in its structure, and axis: not on the
    batch, so that a structure's rows are the same in every batch and on every machine. They
    do depend on the order of the atoms and on the orientation.

    Args:
        batch: n structures.
        n_probes: Directions, >= 0.
        seed: >= 0.

    Yields:
        ``n_probes`` directions.

    Source: Hutchinson, Commun. Stat. Simul. Comput. 19 (1990) 433.
    """
    counts = torch.tensor(batch.atom_counts)
    place = torch.arange(len(batch.positions)) - _starts(batch).repeat_interleave(counts)
    component = (3 * place[:, None] + torch.arange(3)).numpy().astype(np.uint64)
    for probe in range(n_probes):
        bits = hash_integers(component + np.uint64(probe * _STRIDE), seed)
        signs = 1.0 - 2.0 * (bits & np.uint64(1)).astype(np.float64)
        yield torch.from_numpy(signs).to(batch.positions)


def radial_fields(batch: Batch, n_fields: int, *, cutoff: float) -> Iterator[Float[Tensor, "N 3"]]:
    """Yield gradients of sums of radial functions of the pair distances.

    v_j = Σ_i f_m(r_ij) (r_j − r_i)/r_ij with f_m(r) = sin(mπr/r_c) (1 − (r/r_c)²)², m from 1:
    fields that turn with the structure and do not depend on the order of the atoms or on the
    unit cell, so that what is contracted with them is invariant.

    Args:
        batch: n structures.
        n_fields: Fields, >= 0.
        cutoff: r_c, Å, at most that of the batch's neighbour list.

    Yields:
        ``n_fields`` directions, scaled to a root mean square of one over the components of
        each structure; zeros for a structure without neighbours or with a vanishing field.
    """
    sender, receiver = batch.edge_index
    vectors = batch.positions[receiver] - batch.positions[sender] + batch.shifts
    length = torch.linalg.vector_norm(vectors, dim=1).clamp_min(1e-6)
    envelope = (1.0 - (length / cutoff).square()).clamp_min(0.0).square()
    for order in range(1, n_fields + 1):
        strength = torch.sin(order * math.pi * length / cutoff) * envelope
        field = torch.zeros_like(batch.positions)
        field.index_add_(0, receiver, vectors * (strength / length)[:, None])
        yield _scaled(field, batch)


def _scaled(field: Float[Tensor, "N 3"], batch: Batch) -> Float[Tensor, "N 3"]:
    square = field.new_zeros(batch.n_structures)
    square.index_add_(0, batch.structure_idx, field.square().mean(dim=1))
    counts = torch.tensor(batch.atom_counts, dtype=field.dtype, device=field.device)
    size = (square / counts).sqrt()
    # Where symmetry makes a field vanish only rounding is left of it.
    inverse = torch.where(size > 1e-5, 1.0 / size, torch.zeros_like(size))
    return field * inverse[batch.structure_idx, None]


def _starts(batch: Batch) -> Int64[Tensor, " n"]:
    counts = torch.tensor(batch.atom_counts)
    return torch.cumsum(counts, 0) - counts
