"""The one function that runs any rule on kernels."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
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
from labelwise.selection.rules.target import shortlist_by_gain


def select_batch(
    rule: str,
    pool_kernel: Kernel,
    train_kernel: Kernel,
    n_select: int,
    *,
    regularisation: float = DEFAULT_REGULARISATION,
    seed: int = 0,
    target: Kernel | None = None,
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
        target: The structures that matter, (t,), of the rule ``target``; None for the pool.
        shortlist: Keep only so many structures of largest posterior variance (of the rule
            ``target``: of largest gain), then apply the rule to them; None for the whole pool.
        chunk_size: Pool structures a block; no effect on the picks.
        progress: Called as ``progress(done, total)`` in units of work; with a shortlist
            it runs to the end twice.

    Returns:
        pool_idx (n_select,) int64 in order of choice, positions in the whole pool; score
        (n_select,), whose meaning is the rule's.

    Example:
        >>> import torch
        >>> from labelwise import LinearKernel, select_batch
        >>> pool, train = LinearKernel(torch.eye(4)), LinearKernel(torch.eye(4)[:1])
        >>> select_batch("k-center", pool, train, 2).score.tolist()  # squared distances
        [2.0, 2.0]

    Raises:
        ArgumentError: An unknown rule (the message lists those known), a target for a rule that
            takes none, or kernels that do not belong together.
        SelectionError: An argument out of range, or a non-finite kernel value.
    """
    check_name("rule", rule, list_rules("kernel"))
    for kernel in (pool_kernel, train_kernel, *(() if target is None else (target,))):
        if not isinstance(kernel, Kernel):
            raise ArgumentError(
                f"{type(kernel).__name__} is not a kernel: derive it from labelwise.Kernel"
            )
    check_n_select(n_select, len(pool_kernel))
    found = get_rule(rule)
    if target is not None:
        check_takes_target(rule)
    run = partial(
        found.run,
        regularisation=regularisation,
        seed=seed,
        target=pool_kernel if target is None else target,
        chunk_size=chunk_size,
        progress=progress,
    )
    if shortlist is None:
        return run(pool_kernel, train_kernel, n_select)
    if shortlist < n_select:
        raise SelectionError(
            f"shortlist={shortlist} is below n_select={n_select}: allowed are {n_select} or more"
        )
    kept = make_shortlist(
        rule,
        pool_kernel,
        train_kernel,
        shortlist,
        target=target,
        regularisation=regularisation,
        chunk_size=chunk_size,
        progress=progress,
    )
    part = pool_kernel.take(torch.from_numpy(kept).to(pool_kernel.device))
    within = run(part, train_kernel, n_select)
    return Selection(kept[within.pool_idx], within.score)


def make_shortlist(
    rule: str,
    pool: Kernel,
    train: Kernel,
    n_shortlist: int,
    *,
    target: Kernel | None = None,
    **settings: Any,
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the pool structures that a rule goes on with, ascending.

    Args:
        rule: Its name.
        pool: The pool's kernel, (n_pool,).
        train: The labelled structures, (n_train,).
        n_shortlist: How many are kept.
        target: As in ``select_batch``.
        settings: ``regularisation``, ``chunk_size`` and ``progress``.
    """
    if get_rule(rule).takes_target:
        return shortlist_by_gain(pool, train, n_shortlist, target=target, **settings)
    return shortlist_by_variance(pool, train, n_shortlist, **settings)


def check_takes_target(rule: str) -> None:
    """Raise unless a rule chooses for structures other than those of the pool.

    Raises:
        ArgumentError: It does not; the message names those that do.
    """
    if not get_rule(rule).takes_target:
        able = ", ".join(name for name in list_rules("kernel") if get_rule(name).takes_target)
        raise ArgumentError(f"the rule {rule!r} takes no target: choose the rule {able}")
