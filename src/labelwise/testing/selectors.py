"""Laws that every selection rule must obey.

``check_selector`` runs a rule on small pools made here and raises ``AssertionError``
with the name of the law that is broken. Each law answers a mistake seen in a published
tool: labelled structures without influence, the caller's arrays written to, an unseeded
"random" baseline, a batch above the pool filled with something, a chunk size that
changes the picks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import SelectionError
from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import Rule, Selection
from labelwise.selection.rules.registry import SelectFunction

KernelFactory: TypeAlias = Callable[[Float[Tensor, "n d"]], Kernel]

_N_POOL, _N_TRAIN, _WIDTH = 60, 7, 9


def check_selector(
    select: SelectFunction | Rule,
    *,
    make_kernel: KernelFactory | None = None,
    uses_train: bool = True,
    uses_order: bool = False,
) -> None:
    """Raise unless a selection rule obeys the laws.

    Args:
        select: ``select(pool, train, n_select, chunk_size=...) -> Selection``, or a rule, whose
            ``is_random`` then stands for the last two.
        make_kernel: Makes a kernel of features (n, d) float64, n >= 0; by default the
            cosine ``LinearKernel``.
        uses_train: Whether labelled structures must change the picks; false for a random
            rule only.
        uses_order: Whether the order of the pool may change which structures are
            picked; true for a random rule only.

    Raises:
        AssertionError: A law is broken; the message names it.
    """
    if isinstance(select, Rule):
        uses_train, uses_order = not select.is_random, select.is_random
        select = select.run
    make = LinearKernel if make_kernel is None else make_kernel
    features = _families(seed=0)
    pool, train = features[:_N_POOL], features[_N_POOL:]
    for n_select in (1, 10, _N_POOL):
        _check_result(select(make(pool), make(train), n_select), _N_POOL, n_select)
    _check_reproducible(select, make, pool, train)
    _check_inputs_unmodified(select, make, pool, train)
    _check_out_of_range(select, make, pool, train)
    _check_chunk_size(select, make, pool, train)
    _check_degenerate_pools(select, make, pool, train)
    if uses_train:
        _check_uses_train(select, make, pool)
    if not uses_order:
        _check_order(select, make, pool, train)


def _families(seed: int) -> Float[Tensor, "n d"]:
    """Make features of a few families, (67, 9) float64, no two alike."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, _WIDTH))
    family = rng.integers(5, size=_N_POOL + _N_TRAIN)
    noise = rng.normal(scale=0.3, size=(_N_POOL + _N_TRAIN, _WIDTH))
    return torch.from_numpy(centres[family] + noise)


def _check_result(result: Selection, n_pool: int, n_select: int, law: str = "result") -> None:
    """Shapes, dtypes, range, no structure twice, finite scores."""
    idx, score = result.pool_idx, result.score
    _require(isinstance(result, Selection), law, "the result is a Selection")
    _require(idx.shape == (n_select,), law, f"pool_idx has shape ({n_select},), not {idx.shape}")
    _require(score.shape == (n_select,), law, f"score has shape ({n_select},), not {score.shape}")
    _require(idx.dtype == np.int64, law, f"pool_idx is int64, not {idx.dtype}")
    _require(score.dtype == np.float64, law, f"score is float64, not {score.dtype}")
    _require(bool(((idx >= 0) & (idx < n_pool)).all()), law, "indices lie in the pool")
    _require(len(np.unique(idx)) == n_select, law, "no structure is picked twice")
    _require(bool(np.isfinite(score).all()), law, "scores are finite")


def _check_reproducible(
    select: SelectFunction, make: KernelFactory, pool: Tensor, train: Tensor
) -> None:
    """Equal calls give equal results, whatever the global random state; picks are nested."""
    first = select(make(pool), make(train), 10)
    state = torch.random.get_rng_state()
    torch.random.manual_seed(1 + torch.random.initial_seed() % 1000)
    again = select(make(pool), make(train), 10)
    torch.random.set_rng_state(state)
    same = np.array_equal(first.pool_idx, again.pool_idx)
    _require(same, "reproducible", "two equal calls give the same picks")
    _require(
        np.array_equal(first.score, again.score),
        "reproducible",
        "two equal calls give the same scores",
    )
    fewer = select(make(pool), make(train), 4)
    _require(
        np.array_equal(first.pool_idx[:4], fewer.pool_idx),
        "in order of choice",
        "a smaller batch is the beginning of a larger one",
    )


def _check_inputs_unmodified(
    select: SelectFunction, make: KernelFactory, pool: Tensor, train: Tensor
) -> None:
    """Neither the features nor what the kernels return change."""
    kernels = make(pool), make(train)
    before = [pool.clone(), train.clone(), *(k.diagonal().clone() for k in kernels)]
    block = kernels[0].block(slice(None), kernels[1], slice(None)).clone()
    first = select(*kernels, 10)
    after = [pool, train, *(k.diagonal() for k in kernels)]
    unchanged = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    _require(unchanged, "inputs unmodified", "features and kernel diagonals are left alone")
    same = torch.equal(block, kernels[0].block(slice(None), kernels[1], slice(None)))
    _require(same, "inputs unmodified", "kernel values are left alone")
    again = select(*kernels, 10)
    _require(
        np.array_equal(first.pool_idx, again.pool_idx),
        "inputs unmodified",
        "the same kernels can be used again",
    )


def _check_out_of_range(
    select: SelectFunction, make: KernelFactory, pool: Tensor, train: Tensor
) -> None:
    """A batch that cannot be made is an error, never filled up."""
    for n_select in (-1, 0, _N_POOL + 1):
        try:
            select(make(pool), make(train), n_select)
        except SelectionError as error:
            _require(str(_N_POOL) in str(error), "out of range", "the message says what is allowed")
        else:
            _require(False, "out of range", f"n_select={n_select} of {_N_POOL} is an error")
    try:
        select(make(pool[:0]), make(train), 1)
    except SelectionError:
        return
    _require(False, "out of range", "an empty pool is an error")


def _check_chunk_size(
    select: SelectFunction, make: KernelFactory, pool: Tensor, train: Tensor
) -> None:
    """The chunk size changes neither picks nor, beyond rounding, scores."""
    for labelled in (train, train[:0]):
        whole = select(make(pool), make(labelled), 20, chunk_size=10 * _N_POOL)
        for chunk_size in (1, 7, _N_POOL - 1):
            part = select(make(pool), make(labelled), 20, chunk_size=chunk_size)
            same = np.array_equal(part.pool_idx, whole.pool_idx)
            _require(same, "chunk size", f"chunk_size={chunk_size} gives the same picks")
            close = np.allclose(part.score, whole.score, rtol=1e-9, atol=1e-12)
            _require(close, "chunk size", f"chunk_size={chunk_size} gives the same scores")


def _check_degenerate_pools(
    select: SelectFunction, make: KernelFactory, pool: Tensor, train: Tensor
) -> None:
    """Duplicates, zero vectors, copies of the labelled, one structure, nothing labelled."""
    copies = pool[:3].repeat(4, 1)
    cases = {
        "nothing labelled": (pool, train[:0]),
        "duplicates in the pool": (copies, train),
        "duplicates, nothing labelled": (copies, train[:0]),
        "all structures alike": (pool[:1].repeat(9, 1), train[:0]),
        "labelled structures in the pool": (torch.cat([train, pool[:5]]), train),
        "zero vectors": (torch.cat([torch.zeros_like(pool[:4]), pool[:4]]), train),
        "only zero vectors": (torch.zeros_like(pool[:4]), torch.zeros_like(train)),
        "one structure": (pool[:1], train),
        "one structure, nothing labelled": (pool[:1], train[:0]),
    }
    for law, (candidates, labelled) in cases.items():
        n_pool = len(candidates)
        for n_select in {1, n_pool}:
            result = select(make(candidates), make(labelled), n_select)
            _check_result(result, n_pool, n_select, law)


def _check_uses_train(select: SelectFunction, make: KernelFactory, pool: Tensor) -> None:
    """Labelling what would be picked first changes what is picked next."""
    unlabelled = select(make(pool), make(pool[:0]), 3).pool_idx
    anchor = select(make(pool), make(pool[torch.from_numpy(unlabelled)]), 3).pool_idx
    _require(
        not np.array_equal(unlabelled, anchor),
        "uses the training set",
        "labelling the first picks changes the next ones",
    )
    one, other = (select(make(pool), make(part), 5).pool_idx for part in (pool[:6], pool[-6:]))
    _require(
        not np.array_equal(one, other),
        "uses the training set",
        "other labelled structures give other picks",
    )


def _check_order(select: SelectFunction, make: KernelFactory, pool: Tensor, train: Tensor) -> None:
    """The order of the pool and of the labelled set does not change what is picked."""
    order = torch.from_numpy(np.random.default_rng(3).permutation(_N_POOL))
    for labelled in (train, train[:0]):
        straight = select(make(pool), make(labelled), 20)
        shuffled = select(make(pool[order]), make(labelled.flip(0)), 20)
        same = np.array_equal(order.numpy()[shuffled.pool_idx], straight.pool_idx)
        _require(same, "order of files", "a shuffled pool gives the same structures")


def _require(condition: bool, law: str, claim: str) -> None:
    """Raise with the law's name unless the claim holds."""
    if not condition:
        raise AssertionError(f"law {law!r} is broken: it must hold that {claim}")
