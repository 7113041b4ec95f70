"""A seeded random batch, the baseline of every comparison."""

from __future__ import annotations

import numpy as np

from labelwise.errors import SelectionError
from labelwise.kernels.base import Kernel
from labelwise.selection.rules.base import Selection, check_n_select
from labelwise.selection.rules.registry import Rule, register_rule


def select_random(n_pool: int, n_select: int, *, seed: int = 0) -> Selection:
    """Pick without replacement, every structure being equally likely.

    Unlike the other rules it knows positions only: in another order of files the same
    seed picks other structures.

    Args:
        n_pool: Structures in the pool.
        n_select: Structures to pick, 1 <= n_select <= n_pool.
        seed: Seed of ``numpy.random.default_rng``, >= 0; equal seeds give equal picks.

    Returns:
        pool_idx (n_select,) int64; score (n_select,), all zero.

    Raises:
        SelectionError: n_select out of range, or a negative seed.
    """
    check_n_select(n_select, n_pool)
    if seed < 0:
        raise SelectionError(f"seed={seed}: allowed are whole numbers from 0")
    picks = np.random.default_rng(seed).permutation(n_pool)[:n_select].astype(np.int64)
    return Selection(picks, np.zeros(n_select))


def _select(pool: Kernel, train: Kernel, n_select: int, *, seed: int = 0) -> Selection:  # noqa: ARG001
    return select_random(len(pool), n_select, seed=seed)


register_rule(
    Rule(
        "random",
        _select,
        says="a seeded draw at random",
        score_name=None,
        why="It was drawn at random.",
        state_bytes=lambda n, *_: 24 * n,
        is_random=True,
    )
)
