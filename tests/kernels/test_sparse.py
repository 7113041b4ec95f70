"""The sparse kernel has the values of a dense one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from labelwise.errors import ArgumentError
from labelwise.features.representations import SparseRows
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.sparse import SparseLinearKernel
from labelwise.selection.rules import find_nearest, select_batch
from tests.selection.rules.oracles import gram

BLOCK = 5
WIDTH = 12 * BLOCK


def draw_rows(n: int, seed: int = 0) -> np.ndarray:
    """Rows that have about a third of the blocks, some entries of which are zero."""
    rng = np.random.default_rng(seed)
    has = np.repeat(rng.random((n, WIDTH // BLOCK)) < 0.3, BLOCK, axis=1)
    rows = np.where(has & (rng.random((n, WIDTH)) < 0.8), rng.normal(size=(n, WIDTH)), 0.0)
    if n > 3:
        rows[3] = 0.0
    return rows.astype(np.float32)


def make(rows: np.ndarray) -> SparseLinearKernel:
    return SparseLinearKernel(SparseRows(csr_array(rows)), column_block=BLOCK)


@pytest.mark.parametrize("rows_at_once", [3, 2048])
def test_values_are_those_of_dense_rows(rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelwise.kernels.sparse._ROWS_AT_ONCE", rows_at_once)
    a, b = draw_rows(40), draw_rows(9, seed=1)
    pool, train = make(a), make(b)
    wide = a.astype(np.float64), b.astype(np.float64)
    np.testing.assert_allclose(gram(pool, train), wide[0] @ wide[1].T, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(pool.diagonal(), np.square(wide[0]).sum(axis=1), rtol=1e-13)
    rows, cols = torch.tensor([7, 3, 7, 0]), slice(2, 6)
    expected = wide[0][[7, 3, 7, 0]] @ wide[1][2:6].T
    np.testing.assert_allclose(pool.block(rows, train, cols), expected, rtol=1e-13, atol=1e-15)
    part = pool.take(rows)
    assert isinstance(part, SparseLinearKernel)
    np.testing.assert_allclose(
        part.block(slice(None), train, cols), expected, rtol=1e-13, atol=1e-15
    )
    np.testing.assert_allclose(part.diagonal(), pool.diagonal()[rows])


def test_no_rows_and_empty_rows() -> None:
    none, empty, some = make(draw_rows(0)), make(draw_rows(3) * 0), make(draw_rows(6))
    assert none.block(slice(None), some, slice(None)).shape == (0, 6)
    assert some.block(slice(None), none, slice(None)).shape == (6, 0)
    assert not some.block(slice(None), empty, slice(None)).any()
    assert len(some.take(torch.tensor([], dtype=torch.int64))) == 0


@pytest.mark.parametrize("rule", ["pv", "lcmd", "k-center", "top"])
@pytest.mark.parametrize("shortlist", [None, 30])
def test_rules_pick_what_they_pick_of_dense_rows(rule: str, shortlist: int | None) -> None:
    a, b = draw_rows(60).astype(np.float64), draw_rows(8, seed=1)
    a[3] = 1e-3
    rows = a.astype(np.float32)
    options = {"regularisation": 1e-3, "seed": 0, "shortlist": shortlist}
    sparse = select_batch(rule, make(rows), make(b), 15, **options)
    dense = [LinearKernel(part.astype(np.float64), normalise="none") for part in (rows, b)]
    expected = select_batch(rule, *dense, 15, **options)
    assert sparse.pool_idx.tolist() == expected.pool_idx.tolist()
    np.testing.assert_allclose(sparse.score, expected.score, rtol=1e-8)
    found, distance = find_nearest(make(rows), make(b), sparse.pool_idx)
    wanted, wanted_distance = find_nearest(*dense, sparse.pool_idx)
    assert found.tolist() == wanted.tolist()
    np.testing.assert_allclose(distance, wanted_distance, rtol=1e-8)


def test_kernels_of_another_kind_are_refused() -> None:
    kernel = make(draw_rows(5))
    others = [
        LinearKernel(draw_rows(5)),
        SparseLinearKernel(SparseRows(csr_array(draw_rows(5))), column_block=10),
    ]
    for other in others:
        with pytest.raises(ArgumentError, match="cannot be paired"):
            kernel.block(slice(None), other, slice(None))
