"""Every rule picks from rows on disk what it picks from memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.kernels import stored as stored_kernel
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.stored import StoredKernel
from labelwise.selection.rules import (
    anticipation,
    find_nearest,
    nearest_centre,
    posterior_variance,
    select_batch,
)
from labelwise.selection.rules.base import Ticker
from labelwise.selection.rules.lcmd import LargestCluster
from labelwise.selection.rules.nearest_centre import NearestCentre, pick_by_distance
from labelwise.testing.selectors import check_selector
from tests.features.npy_rows import NpyRows
from tests.selection.rules.oracles import noise, paths

DATA = {"noise": noise, "paths": paths}
RULES = ["pv", "lcmd", "k-center", "top"]
N, M, D = 700, 40, 24
PIECE = 60


@pytest.fixture(autouse=True)
def _small_readings(monkeypatch):
    monkeypatch.setattr(stored_kernel, "GATHER_BYTES", 4 * D * 50)
    monkeypatch.setattr(stored_kernel, "ROW_MEMO_BYTES", 4 * D * 90)


def on_disk(kernel, folder, **settings):
    np.save(folder / "rows.npy", kernel.features.numpy())
    source = NpyRows(folder / "rows.npy", piece_bytes=4 * kernel.width * PIECE)
    return StoredKernel(source, normalise=kernel.normalise, **settings)


def sorted_by_family(features):
    """Rows in an order in which neighbours are alike, as the frames of a path are."""
    return features[torch.argsort(features[:, 0])]


@pytest.mark.parametrize("cache_pieces", [0, 5, 12])
@pytest.mark.parametrize("n_train", [0, 15, M])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("rule", RULES)
def test_picks_are_those_from_memory(rule, data, n_train, cache_pieces, tmp_path):
    features = DATA[data](N + M, D, seed=1).float()
    features[300:330] = features[:30]
    pool = LinearKernel(features[:N])
    train = LinearKernel(features[N : N + n_train])
    stored = on_disk(pool, tmp_path, cache_bytes=cache_pieces * PIECE * 4 * D)
    expected = select_batch(rule, pool, train, 120)
    ours = select_batch(rule, stored, train, 120, chunk_size=37)
    np.testing.assert_array_equal(ours.pool_idx, expected.pool_idx)
    np.testing.assert_allclose(ours.score, expected.score, rtol=1e-9, atol=1e-12)
    short = select_batch(rule, pool, train, 30, shortlist=100)
    ours = select_batch(rule, stored, train, 30, shortlist=100)
    np.testing.assert_array_equal(ours.pool_idx, short.pool_idx)


@pytest.mark.parametrize("rule", ["lcmd", "k-center"])
@pytest.mark.parametrize("n_columns", [0, 3, 500])
def test_the_memory_for_columns_does_not_matter(rule, n_columns, tmp_path):
    pool = LinearKernel(sorted_by_family(paths(N, D, seed=2).float()))
    train = LinearKernel(paths(M, D, seed=3).float())
    stored = on_disk(pool, tmp_path, column_bytes=8 * N * n_columns)
    expected = select_batch(rule, pool, train, 90)
    np.testing.assert_array_equal(select_batch(rule, stored, train, 90).pool_idx, expected.pool_idx)


@pytest.mark.parametrize("column_bytes", [0, 8 * N, 8 * N * 10, 8 * N * 200])
@pytest.mark.parametrize("cache_pieces", [0, 12])
def test_columns_keep_to_their_memory(column_bytes, cache_pieces, tmp_path):
    pool = LinearKernel(noise(N, D, seed=4).float())
    kernel = on_disk(
        pool, tmp_path, column_bytes=column_bytes, cache_bytes=cache_pieces * PIECE * 4 * D
    )
    columns = anticipation.AnticipatedColumns(kernel)
    for pick in range(300):
        values = columns.column(pick, lambda n, z=pick: list(range(z + 1, z + 1 + n)))
        assert columns.exact == (values.dtype == torch.float64)
        held = sum(c.nbytes for block in columns._blocks for c in block.values())
        assert held <= max(column_bytes, values.nbytes)


def test_the_share_of_distances_spared_is_counted(tmp_path):
    pool = LinearKernel(sorted_by_family(paths(N, D, seed=5).float()))
    train = LinearKernel(paths(M, D, seed=6).float())
    spared = []
    for kernel in (pool, on_disk(pool, tmp_path)):
        ticker = Ticker(None, 0)
        state = NearestCentre(kernel, train, 4096, ticker)
        pick_by_distance(state, 100, LargestCluster(), ticker)
        assert state.n_asked == 100 * N
        spared.append(state.n_spared / state.n_asked)
    assert 0.5 < spared[0] < 1.0
    assert 0.0 < spared[1] <= 1.0


def test_passes_over_the_disk_are_far_fewer_than_picks(tmp_path, monkeypatch):
    """On noise the inequality spares nothing, so every pick needs its column."""
    pool = LinearKernel(noise(N, D, seed=7).float())
    train = LinearKernel(noise(M, D, seed=8).float())
    kernel = on_disk(pool, tmp_path, column_bytes=8 * N * 128)
    n_read = 0
    original = NpyRows.read

    def counting(self, rows):
        nonlocal n_read
        n_read += rows.stop - rows.start
        return original(self, rows)

    monkeypatch.setattr(NpyRows, "read", counting)
    monkeypatch.setattr(nearest_centre, "_FULL_COLUMN_FRACTION", 0.0)
    select_batch("k-center", kernel, train, 100)
    assert n_read < 25 * N


def test_variances_and_nearest_are_those_from_memory(tmp_path):
    pool = LinearKernel(paths(N, D, seed=9).float())
    train = LinearKernel(paths(M, D, seed=10).float())
    stored = on_disk(pool, tmp_path)
    torch.testing.assert_close(
        posterior_variance(stored, train), posterior_variance(pool, train), rtol=1e-12, atol=1e-15
    )
    idx = np.array([600, 3, 3, 250])
    for ours, expected in zip(
        find_nearest(stored, train, idx), find_nearest(pool, train, idx), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


def test_labelled_rows_may_be_on_disk_too(tmp_path):
    pool = LinearKernel(noise(200, D, seed=11).float())
    train = LinearKernel(noise(150, D, seed=12).float())
    stored = on_disk(train, tmp_path)
    for rule in RULES:
        np.testing.assert_array_equal(
            select_batch(rule, pool, stored, 40).pool_idx,
            select_batch(rule, pool, train, 40).pool_idx,
        )


@pytest.mark.parametrize("rule", RULES)
def test_laws(rule, tmp_path):
    numbers = iter(range(10_000))

    def make(features):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return on_disk(LinearKernel(features, dtype=torch.float32), folder)

    def select(pool, train, n_select, **settings):
        return select_batch(rule, pool, train, n_select, **settings)

    check_selector(select, make_kernel=make)
