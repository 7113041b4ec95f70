from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import nearest_centre, select_lcmd
from labelwise.selection.rules.anticipation import AnticipatedColumns
from tests.selection.rules.oracles import noise, paths, split


@pytest.mark.parametrize("guess", ["right", "wrong", "none"])
def test_columns_do_not_depend_on_the_guess(guess):
    pool = LinearKernel(noise(120, 9, seed=4))
    columns = AnticipatedColumns(pool)
    guesses = {
        "right": lambda z: range(z + 1, 120),
        "wrong": lambda z: range(z),
        "none": lambda z: (),
    }
    for pick in range(100):
        column = columns.column(pick, lambda n, z=pick: list(guesses[guess](z))[:n])
        torch.testing.assert_close(column, pool.features @ pool.features[pick])


def test_guesses_are_mostly_right(monkeypatch):
    """On noise, where whole columns are needed, one product serves several picks."""
    pool, train = split(noise(4100, 512, seed=5).float(), 4000)
    blocks = []
    original = LinearKernel.block

    def counting(self, rows, other, cols):
        if self is pool and other is pool and isinstance(cols, slice):
            blocks.append(rows)
        return original(self, rows, other, cols)

    monkeypatch.setattr(LinearKernel, "block", counting)
    select_lcmd(pool, train, 100)
    assert 0 < len(blocks) < 50


def test_the_triangle_inequality_spares_most_structures(monkeypatch):
    pool, train = split(paths(2060, 32, seed=6, n_families=30), 2000)
    looked_at = []
    original = nearest_centre.NearestCentre._move

    def counting(self, near, pick, products):
        looked_at.append(len(near))
        original(self, near, pick, products)

    monkeypatch.setattr(nearest_centre.NearestCentre, "_move", counting)
    select_lcmd(pool, train, 100)
    assert np.mean(looked_at) < 0.2 * len(pool)
