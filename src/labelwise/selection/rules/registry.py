"""The rules by name, and the one function that runs any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import torch

from labelwise.errors import ArgumentError, SelectionError, check_name
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel
from labelwise.selection.rules.base import (
    DEFAULT_REGULARISATION,
    ProgressCallback,
    Selection,
    check_n_select,
)
from labelwise.selection.rules.k_center import select_k_center
from labelwise.selection.rules.lcmd import select_lcmd
from labelwise.selection.rules.posterior_variance import select_posterior_variance
from labelwise.selection.rules.random import select_random
from labelwise.selection.rules.shortlist import shortlist_by_variance
from labelwise.selection.rules.top import select_top_variance


@dataclass(frozen=True)
class RuleSettings:
    """What a rule may need beside the two kernels and the size of the batch.

    Attributes:
        regularisation: λ, the noise variance in units of the kernel, > 0.
        seed: Seed of whatever is random, >= 0.
        chunk_size: Pool structures a block, >= 1; must not affect the picks.
        progress: Called as ``progress(done, total)`` in units of work.
    """

    regularisation: float = DEFAULT_REGULARISATION
    seed: int = 0
    chunk_size: int = DEFAULT_CHUNK_SIZE
    progress: ProgressCallback | None = None


Rule: TypeAlias = Callable[[Kernel, Kernel, int, RuleSettings], Selection]


def _pv(pool: Kernel, train: Kernel, n_select: int, settings: RuleSettings) -> Selection:
    return select_posterior_variance(
        pool,
        train,
        n_select,
        regularisation=settings.regularisation,
        chunk_size=settings.chunk_size,
        progress=settings.progress,
    )


def _lcmd(pool: Kernel, train: Kernel, n_select: int, settings: RuleSettings) -> Selection:
    return select_lcmd(
        pool, train, n_select, chunk_size=settings.chunk_size, progress=settings.progress
    )


def _k_center(pool: Kernel, train: Kernel, n_select: int, settings: RuleSettings) -> Selection:
    return select_k_center(
        pool, train, n_select, chunk_size=settings.chunk_size, progress=settings.progress
    )


def _top(pool: Kernel, train: Kernel, n_select: int, settings: RuleSettings) -> Selection:
    return select_top_variance(
        pool,
        train,
        n_select,
        regularisation=settings.regularisation,
        chunk_size=settings.chunk_size,
        progress=settings.progress,
    )


def _random(pool: Kernel, _train: Kernel, n_select: int, settings: RuleSettings) -> Selection:
    return select_random(len(pool), n_select, seed=settings.seed)


_RULES: dict[str, Rule] = {
    "pv": _pv,
    "lcmd": _lcmd,
    "k-center": _k_center,
    "top": _top,
    "random": _random,
}
RULES: Mapping[str, Rule] = MappingProxyType(_RULES)


def register_rule(name: str, rule: Rule) -> None:
    """Offer a rule under a name, to ``select_batch`` and the command line.

    Args:
        name: A name that is not taken.
        rule: ``rule(pool, train, n_select, settings) -> Selection``.

    Raises:
        ArgumentError: The name is taken.
    """
    if name in _RULES:
        raise ArgumentError(f"the rule {name!r} exists already: choose another name")
    _RULES[name] = rule


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
    check_name("rule", rule, _RULES)
    check_n_select(n_select, len(pool_kernel))
    settings = RuleSettings(regularisation, seed, chunk_size, progress)
    if shortlist is None:
        return _RULES[rule](pool_kernel, train_kernel, n_select, settings)
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
    within = _RULES[rule](part, train_kernel, n_select, settings)
    return Selection(kept[within.pool_idx], within.score)
