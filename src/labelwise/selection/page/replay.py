"""The clusters of LCMD and k-center at the moment of each pick, replayed from the distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel
from labelwise.selection.rules.base import Ticker
from labelwise.selection.rules.nearest_centre import NearestCentre


@dataclass(frozen=True)
class ClusterAtPick:
    """The cluster that a pick was taken from.

    Attributes:
        centre: Its centre: 0 to m - 1 are the labelled structures, m + j is the pick of rank j.
        n_members: Structures in it, the pick included, that were not picked before.
        mass_share: Its part of the sum of squared distances of all structures, 0 to 1.
        sq_dist: Squared kernel distance from the pick to the centre.
    """

    centre: int
    n_members: int
    mass_share: float
    sq_dist: float


def replay_clusters(
    pool: Kernel, train: Kernel, picks: Int64[np.ndarray, " k"]
) -> tuple[ClusterAtPick | None, ...]:
    """Return the cluster that each pick was taken from.

    Every structure belongs to its nearest centre among the labelled structures and the picks
    so far, as the rules have it.

    Args:
        pool: The structures on which the rule worked, (n,).
        train: The labelled structures, (m,), may be empty.
        picks: Rows of the picks, in order of choice.

    Returns:
        One entry a pick; None for the first where nothing was labelled.
    """
    state = NearestCentre(pool, train, DEFAULT_CHUNK_SIZE, Ticker(None, 0))
    order = picks.tolist()
    clusters: list[ClusterAtPick | None] = []
    for rank, pick in enumerate(order):
        clusters.append(None if state.n_centres == 0 else _cluster_of(state, pick))
        coming = order[rank + 1 :]
        state.add(pick, lambda count, coming=coming: coming[:count])  # type: ignore[misc]
    return tuple(clusters)


def _cluster_of(state: NearestCentre, pick: int) -> ClusterAtPick:
    centre = int(state.centre[pick])
    members = (state.centre == centre) & ~state.taken
    mass = torch.bincount(state.centre, weights=state.sq_dist, minlength=state.n_centres)
    total = float(mass.sum())
    return ClusterAtPick(
        centre,
        int(members.sum()),
        float(mass[centre]) / total if total > 0 else 0.0,
        float(state.sq_dist[pick]),
    )
