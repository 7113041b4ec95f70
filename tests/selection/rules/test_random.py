from __future__ import annotations

import numpy as np
import pytest

from labelwise.errors import SelectionError
from labelwise.selection.rules import select_batch, select_random
from tests.selection.rules.oracles import noise, split


def test_random_uses_the_seed():
    one, same, other = (select_random(100, 20, seed=s).pool_idx for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)
    pool, train = split(noise(103, 4, seed=0), 100)
    np.testing.assert_array_equal(select_batch("random", pool, train, 20, seed=2).pool_idx, other)
    with pytest.raises(SelectionError, match="seed=-1"):
        select_random(10, 2, seed=-1)


def test_random_takes_every_structure_equally_often():
    counts = np.bincount(
        np.concatenate([select_random(10, 3, seed=s).pool_idx for s in range(2000)]), minlength=10
    )
    assert (abs(counts - 600) < 5 * np.sqrt(600 * 0.7)).all()
