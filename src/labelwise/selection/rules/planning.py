"""How a bound on memory is divided among what a selection holds.

A selection from rows on disk holds the state of its rule, some numbers a structure; whole
columns, which spare passes over the disk; the piece that passes by and the one that is read
ahead; and, with what is left, pieces that need not be read again. Where all rows fit beside the
state they are held in one array.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from labelwise.errors import SelectionError
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE
from labelwise.kernels.linear import FeatureKernel
from labelwise.kernels.stored import GATHER_BYTES, ROW_MEMO_BYTES, RowSource, StoredKernel
from labelwise.runtime.memory import format_bytes, give_freed_memory_back, resident_bytes
from labelwise.selection.rules.linear_posterior import prior_bytes
from labelwise.selection.rules.registry import get_rule

#: What the libraries take for products, and what the allocator does not give back.
RESERVE_BYTES = 96 * 2**20
# What these count is held against the peak of whole runs: tests/selection/rules/test_planning.py,
# and benchmarks/results/scale.md at 200,000 × 1,920 and 1,000,000 × 512.
_PIECES_HELD = 3
_GATHERS_HELD = 4
_LEAST_CHUNK = 128
_WIDE_ROWS = 4
_LEAST_COLUMNS, _MOST_COLUMNS = 4, 128
_SCORES_PER_STRUCTURE = 64


@dataclass(frozen=True)
class SelectionMemory:
    """What a selection may hold.

    Attributes:
        in_memory: Whether all rows are read into one array.
        cache_bytes: Pieces to keep of rows on disk.
        column_bytes: Whole columns that a rule may keep.
        chunk_size: Structures a block.
        peak_bytes: Estimate of the largest resident memory.
    """

    in_memory: bool
    cache_bytes: int
    column_bytes: int
    chunk_size: int
    peak_bytes: int


def plan_selection(
    budget_bytes: int,
    *,
    n: int,
    d: int,
    n_train: int,
    n_select: int,
    rule: str,
    shortlist: int | None = None,
    piece_bytes: int,
    resident: int | None = None,
) -> SelectionMemory:
    """Divide a bound on resident memory for a selection from rows on disk.

    Args:
        budget_bytes: What the process may hold in all.
        n: Structures in the pool.
        d: Length of a row, float32.
        n_train: Labelled structures.
        n_select: Picks.
        rule: Name of the rule.
        shortlist: Structures on which the rule works, if not on the whole pool.
        piece_bytes: The largest piece of the rows.
        resident: What the process holds already; by default it is measured.

    Raises:
        SelectionError: It is too little; the message names the least that would do.
    """
    held = RESERVE_BYTES + (resident_bytes() if resident is None else resident)
    n_rule = n if shortlist is None else min(shortlist, n)
    fixed = held + _fixed_bytes(n, d, n_train, n_select, rule, shortlist, piece_bytes)
    least_columns = 8 * n_rule * _LEAST_COLUMNS if get_rule(rule).keeps_columns else 0
    least = fixed + least_columns + _chunk_bytes(_LEAST_CHUNK, d, n_train)
    if budget_bytes < least:
        raise SelectionError(
            f"memory={format_bytes(budget_bytes)} is too little for {rule} on {n} structures of "
            f"{d} features: the least is {format_bytes(1.02 * least)}; allow more, or use a "
            "shortlist"
        )
    left = budget_bytes - least
    column_bytes = least_columns
    if least_columns:
        column_bytes += min(left // 4, 8 * n_rule * _MOST_COLUMNS - least_columns)
    left -= column_bytes - least_columns
    chunk_size = _LEAST_CHUNK
    while chunk_size < DEFAULT_CHUNK_SIZE and _chunk_bytes(2 * chunk_size, d, n_train) <= left // 8:
        chunk_size *= 2
    left -= _chunk_bytes(chunk_size, d, n_train) - _chunk_bytes(_LEAST_CHUNK, d, n_train)
    all_rows = 4 * n * d
    # A shortlist is one pass: new memory for its rows would cost more than reading some again.
    cache_bytes = min(left, all_rows) if shortlist is None else 0
    return SelectionMemory(
        in_memory=shortlist is None and all_rows <= left,
        cache_bytes=cache_bytes,
        column_bytes=column_bytes,
        chunk_size=chunk_size,
        peak_bytes=budget_bytes - left + cache_bytes,
    )


def open_kernel(
    source: RowSource,
    memory: SelectionMemory,
    *,
    normalise: str = "cosine",
    device: torch.device | str = "cpu",
) -> FeatureKernel:
    """Return the kernel of rows on disk that keeps to a plan.

    From now on the process gives freed memory back (``memory.give_freed_memory_back``).

    Args:
        source: φ̃, (n, d), normalised already.
        memory: What it may hold.
        normalise: How the rows were normalised, ``"cosine"`` or ``"none"``.
        device: Where to multiply.

    Raises:
        ArgumentError: An unknown ``normalise``, or a row that is not finite.
    """
    give_freed_memory_back()
    kernel = StoredKernel(
        source,
        normalise=normalise,
        cache_bytes=0 if memory.in_memory else memory.cache_bytes,
        column_bytes=memory.column_bytes,
        device=device,
    )
    return kernel.to_memory() if memory.in_memory else kernel


def _fixed_bytes(
    n: int, d: int, n_train: int, n_select: int, rule: str, shortlist: int | None, piece_bytes: int
) -> int:
    """Return what is held whatever the memory: rows that pass by, state, labelled rows."""
    n_rule = n if shortlist is None else min(shortlist, n)
    reading = _PIECES_HELD * piece_bytes + _GATHERS_HELD * GATHER_BYTES + ROW_MEMO_BYTES + 16 * n
    state = get_rule(rule).state_bytes(n_rule, d, n_train, n_select)
    if shortlist is not None:
        scoring = n * _SCORES_PER_STRUCTURE + prior_bytes(d, n_train)
        state = max(4 * n_rule * d + state, scoring)
    return reading + state + 4 * n_train * d


def _chunk_bytes(chunk_size: int, d: int, n_train: int) -> int:
    """Return what the rows of a chunk and their products take in float64."""
    return 8 * chunk_size * (_WIDE_ROWS * d + min(n_train, d))
