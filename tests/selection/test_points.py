from __future__ import annotations

import numpy as np
import pytest

from labelwise.selection.measurement import choose_points


def test_small_pools_are_shown_whole() -> None:
    shown = choose_points(10, 3, np.array([4, 1]), np.array([2, 2]), None, seed=0)
    assert shown.pool.tolist() == list(range(10))
    assert shown.train.tolist() == [0, 1, 2]
    assert shown.points_of_pool(np.array([4, 1])).tolist() == [4, 1]
    assert shown.points_of_train(np.array([2, 0])).tolist() == [12, 10]


def test_of_large_pools_what_was_chosen_is_shown() -> None:
    picks, shortlist = np.array([900, 3]), np.arange(100, 120)
    nearest = np.full(2, 20_000)
    shown = choose_points(1000, 30_000, picks, nearest, shortlist, seed=1, most=50)
    assert len(shown.pool) == 50
    assert (np.diff(shown.pool) > 0).all()
    assert set(shown.pool) >= {900, 3, *shortlist.tolist()}
    assert 20_000 in shown.train
    assert len(shown.train) == 10_000
    assert (shown.pool[shown.points_of_pool(picks)] == picks).all()
    hidden = np.setdiff1d(np.arange(1000), shown.pool)[:5]
    assert shown.points_of_pool(hidden).tolist() == [-1] * 5
    again = choose_points(1000, 30_000, picks, nearest, shortlist, seed=1, most=50)
    other = choose_points(1000, 30_000, picks, nearest, shortlist, seed=2, most=50)
    assert np.array_equal(shown.pool, again.pool)
    assert not np.array_equal(shown.pool, other.pool)


@pytest.mark.parametrize("most", [1, 2])
def test_picks_are_shown_even_beyond_the_bound(most: int) -> None:
    shown = choose_points(10, 0, np.array([4, 1]), np.array([-1, -1]), None, seed=0, most=most)
    assert shown.pool.tolist() == [1, 4]
    assert shown.points_of_train(np.array([0])).tolist() == [-1]
