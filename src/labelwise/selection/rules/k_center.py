"""k-center: farthest first."""

from __future__ import annotations

import torch

from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel
from labelwise.selection.rules.base import ProgressCallback, Selection, first_max
from labelwise.selection.rules.nearest_centre import (
    NearestCentre,
    nearest_state_bytes,
    select_by_distance,
)
from labelwise.selection.rules.registry import Rule, register_rule


def select_k_center(
    pool: Kernel,
    train: Kernel,
    n_select: int,
    *,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    progress: ProgressCallback | None = None,
) -> Selection:
    """Pick the structure farthest from everything labelled or picked, again and again.

    The radius that is left is at most twice the smallest possible (Gonzalez 1985). With
    nothing labelled the first pick is that of ``unlabelled.first_pick``.

    Arguments, result and errors are those of ``select_by_distance``.

    Source: Gonzalez, Theor. Comput. Sci. 38 (1985) 293; as a selection rule, Sener and
    Savarese, ICLR 2018.
    """
    return select_by_distance(
        pool, train, n_select, _FarthestFirst(), chunk_size=chunk_size, progress=progress
    )


class _FarthestFirst:
    """The structure farthest from its centre."""

    def choose(self, state: NearestCentre) -> int:
        """Return the next pick."""
        return first_max(state.open_sq_dist())

    def guess(self, state: NearestCentre, count: int) -> list[int]:
        """Return about ``count`` structures that may be picked next: those far now."""
        picks: list[int] = torch.topk(
            state.open_sq_dist(), min(count, state.n_open)
        ).indices.tolist()
        return picks


register_rule(
    Rule(
        "k-center",
        select_k_center,
        says="the structure farthest from all labelled and chosen ones, again and again",
        score_name="squared distance",
        why="It was the structure farthest from everything labelled or chosen: {distance} from "
        "the nearest, {centre}, around which there were {members}.",
        state_bytes=nearest_state_bytes,
        keeps_columns=True,
        has_clusters=True,
    )
)
