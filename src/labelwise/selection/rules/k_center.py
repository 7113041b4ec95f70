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

    Args:
        pool: The pool's kernel, (n_pool,) structures, dimensionless.
        train: The labelled structures under the same representation, (n_train,), may
            be empty.
        n_select: Structures to pick, 1 <= n_select <= n_pool.
        chunk_size: Pool structures a block; no effect on the picks.
        progress: Called as ``progress(done, total)`` in units of work.

    Returns:
        pool_idx (n_select,) int64 in order of choice; score (n_select,), the squared
        distance to the nearest centre when chosen, k(x, x) where there was none.

    Raises:
        SelectionError: n_select or chunk_size out of range, or a kernel value that is
            not finite.
        ArgumentError: The kernels do not belong together.

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
