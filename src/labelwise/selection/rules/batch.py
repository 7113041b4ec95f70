"""The one function that runs any rule on kernels."""

from __future__ import annotations

from functools import partial

import torch

from labelwise.errors import ArgumentError, SelectionError, check_name
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel
from labelwise.selection.rules.base import (
    DEFAULT_REGULARISATION,
    ProgressCallback,
    Selection,
    check_n_select,
)
from labelwise.selection.rules.registry import get_rule, list_rules
from labelwise.selection.rules.shortlist import shortlist_by_variance


def select_batch(
    rule: str,
    pool_kernel: Kernel,
    train_kernel: Kernel,
    n_select: int,
    *,
    regularisation: float = DEFAULT_REGULARISATION,
    seed: int = 0,
    shortlist: int | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    progress: ProgressCallback | None = None,
) -> Selection:
    """Pick a batch from a pool by the rule of a given name.

    Args:
        rule: ``pv``, ``lcmd``, ``k-center``, ``top``, ``random`` or a registered name.
        pool_kernel: The pool's kernel, (n_pool,) structures, dimensionless.
        train_kernel: The labelled structures under the same representation, (n_train,),
            may be empty.
        n_select: Structures to pick, 1 <= n_select <= n_pool (<= shortlist).
        regularisation: λ of ``pv``, ``top`` and the shortlist, in units of the kernel.
        seed: Seed of ``random``.
        shortlist: Keep only so many structures of largest posterior variance, then apply
            the rule to them; None for the whole pool.
        chunk_size: Pool structures a block; no effect on the picks.
        progress: Called as ``progress(done, total)`` in units of work; with a shortlist
            it runs to the end twice.

    Returns:
        pool_idx (n_select,) int64 in order of choice, positions in the whole pool; score
        (n_select,), whose meaning is the rule's.

    Raises:
        ArgumentError: An unknown rule (the message lists those known), or kernels that
            do not belong together.
        SelectionError: An argument out of range, or a non-finite kernel value.
    """
    check_name("rule", rule, list_rules("kernel"))
    for kernel in (pool_kernel, train_kernel):
        if not isinstance(kernel, Kernel):
            raise ArgumentError(
                f"{type(kernel).__name__} is not a kernel: derive it from labelwise.Kernel"
            )
    check_n_select(n_select, len(pool_kernel))
    run = partial(
        get_rule(rule).run,
        regularisation=regularisation,
        seed=seed,
        chunk_size=chunk_size,
        progress=progress,
    )
    if shortlist is None:
        return run(pool_kernel, train_kernel, n_select)
    if shortlist < n_select:
        raise SelectionError(
            f"shortlist={shortlist} is below n_select={n_select}: allowed are {n_select} or more"
        )
    kept = shortlist_by_variance(
        pool_kernel,
        train_kernel,
        shortlist,
        regularisation=regularisation,
        chunk_size=chunk_size,
        progress=progress,
    )
    part = pool_kernel.take(torch.from_numpy(kept).to(pool_kernel.device))
    within = run(part, train_kernel, n_select)
    return Selection(kept[within.pool_idx], within.score)
