"""Splits of reactions into pool, validation and test set."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError
from labelwise.structures.datasets.splits import PoolSplit, split_mixed, split_natural


def _families(sizes: list[int]) -> list[str]:
    return [f"r{i}" for i, n in enumerate(sizes) for _ in range(n)]


def _rows(split: PoolSplit) -> list[int]:
    return [*split.pool.tolist(), *split.valid.tolist(), *split.test.tolist()]


def test_the_papers_numbers() -> None:
    families = _families([120 + 20 * i for i in range(17)])
    splits = split_natural(families, range(len(families)), seed=3)
    assert len(splits) == 3
    seen: list[str] = []
    for split in splits:
        counts = Counter(families[i] for i in split.test.tolist())
        assert sorted(counts.values()) == [35] * 5
        assert len(split.valid) == 50
        assert split.changes == ()
        seen += counts
        sizes = Counter(families[i] for i in split.pool.tolist())
        assert max(sizes.values()) > min(sizes.values())
    assert len(set(seen)) == 15


def test_few_and_small_reactions_are_said() -> None:
    families = _families([30, 60, 90])
    (split,) = split_natural(families, range(len(families)), seed=0)
    assert Counter(families[i] for i in split.test.tolist()) == {"r0": 10, "r1": 20, "r2": 30}
    assert any("3 of 5 reactions → 1 of 3" in change for change in split.changes)
    assert any("35 → 10" in change for change in split.changes)
    assert any("validation structures: 50 → 24" in change for change in split.changes)


@given(
    sizes=st.lists(st.integers(12, 40), min_size=2, max_size=8),
    n_copies=st.integers(0, 40),
    seed=st.integers(0, 1000),
    mixed=st.booleans(),
)
def test_sets_and_copies_never_cross(
    sizes: list[int], n_copies: int, seed: int, mixed: bool
) -> None:
    families = _families(sizes)
    rng = np.random.default_rng(seed)
    copy_of = list(range(len(families)))
    for i in rng.permutation(len(families))[:n_copies].tolist():
        earlier = copy_of[int(rng.integers(0, i + 1))]
        copy_of[i] = earlier
    if mixed:
        splits = [split_mixed(families, copy_of, seed=seed)]
    else:
        splits = split_natural(families, copy_of, seed=seed)
    for split in splits:
        rows = _rows(split)
        assert len(rows) == len(set(rows))
        held = [copy_of[i] for i in (*split.valid.tolist(), *split.test.tolist())]
        assert len(held) == len(set(held))
        assert not {copy_of[i] for i in split.pool.tolist()} & set(held)
        names = {families[i] for i in rows}
        n_members = sum(family in names for family in families)
        assert len(rows) + split.n_left_out == n_members


def test_mixed_parts_and_limit() -> None:
    families = _families([10] * 130)
    split = split_mixed(families, range(1300), seed=1)
    assert (len(split.pool), len(split.valid), len(split.test)) == (700, 100, 200)
    assert split.changes == ()


def test_the_seed_decides() -> None:
    families = _families([40] * 12)
    first, again, other = (
        [_rows(split) for split in split_natural(families, range(480), seed=seed)]
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_too_few_structures() -> None:
    with pytest.raises(ArgumentError, match="at least one of each"):
        split_natural(_families([2, 2]), range(4), seed=0)
