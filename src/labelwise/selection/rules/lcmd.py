"""LCMD: largest cluster, maximum distance."""

from __future__ import annotations

import heapq

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel
from labelwise.selection.rules.base import TIE, ProgressCallback, Selection, first_max
from labelwise.selection.rules.nearest_centre import (
    NearestCentre,
    nearest_state_bytes,
    select_by_distance,
)
from labelwise.selection.rules.registry import Rule, register_rule


def select_lcmd(
    pool: Kernel,
    train: Kernel,
    n_select: int,
    *,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    progress: ProgressCallback | None = None,
) -> Selection:
    """Pick the farthest member of the heaviest cluster, again and again.

    Every structure belongs to its nearest centre among the labelled structures and the
    picks so far; a cluster's weight is its sum of squared kernel distances. With nothing
    labelled the first pick is that of ``unlabelled.first_pick``.

    Arguments, result and errors are those of ``select_by_distance``.

    Source: Holzmüller et al., JMLR 24 (2023) 164, section 4.
    """
    return select_by_distance(
        pool, train, n_select, LargestCluster(), chunk_size=chunk_size, progress=progress
    )


class LargestCluster:
    """The farthest member of the heaviest cluster."""

    def choose(self, state: NearestCentre) -> int:
        """Return the next pick; of equally heavy clusters, the farthest member of all."""
        weight = _weights(state)
        largest = float(weight.max())
        heaviest = weight >= (1.0 - TIE) * largest
        if largest > 0.0 and int(heaviest.sum()) == 1:  # its farthest member is not taken
            members = torch.nonzero(state.centre == weight.argmax()).squeeze(1)
            return int(members[first_max(state.sq_dist[members])])
        return first_max(torch.where(heaviest[state.centre], state.open_sq_dist(), -torch.inf))

    def guess(self, state: NearestCentre, count: int) -> list[int]:
        """Return about ``count`` structures that may be picked next.

        These are the picks if no structure but the picks left its cluster.
        """
        weight = _weights(state)
        heaviest = torch.topk(weight, min(count, len(weight)))
        heap = [(-w, c) for w, c in zip(*map(torch.Tensor.tolist, heaviest), strict=True)]
        far_members: dict[int, list[tuple[float, int]]] = {}
        picks: list[int] = []
        while heap and len(picks) < count:
            minus_weight, cluster = heap[0]
            if cluster not in far_members:
                far_members[cluster] = _farthest_members(state, cluster, count)
            if not far_members[cluster]:
                heapq.heappop(heap)
                continue
            sq_dist, pick = far_members[cluster].pop()
            picks.append(pick)
            heapq.heapreplace(heap, (minus_weight + sq_dist, cluster))
        return picks


def _weights(state: NearestCentre) -> Float[Tensor, " c"]:
    """Return the sum of d² of each cluster, (n_centres,), summed anew: it does not drift."""
    return torch.bincount(state.centre, weights=state.sq_dist, minlength=state.n_centres)


def _farthest_members(state: NearestCentre, cluster: int, count: int) -> list[tuple[float, int]]:
    """Return up to ``count`` open members of a cluster with their d², the farthest last."""
    members = torch.nonzero((state.centre == cluster) & ~state.taken).squeeze(1)
    far = torch.topk(state.sq_dist[members], min(count, len(members)))
    return list(zip(far.values.tolist(), members[far.indices].tolist(), strict=True))[::-1]


register_rule(
    Rule(
        "lcmd",
        select_lcmd,
        says="the farthest member of the heaviest cluster, again and again (LCMD)",
        score_name="squared distance",
        why="It was the farthest member of the heaviest cluster: {members} around {centre} held "
        "{share} of the mass ({distance}).",
        state_bytes=nearest_state_bytes,
        keeps_columns=True,
        has_clusters=True,
    )
)
