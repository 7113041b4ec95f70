from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError
from labelwise.kernels import stored as stored_kernel
from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import FeatureKernel, LinearKernel
from labelwise.kernels.stored import StoredKernel
from tests.features.npy_rows import NpyRows
from tests.selection.rules.oracles import RbfKernel, noise, paths

N, D = 101, 12
ROW_BYTES = 4 * D


@pytest.fixture
def whole():
    return LinearKernel(paths(N, D, seed=1).float())


@pytest.fixture
def source(whole, tmp_path):
    np.save(tmp_path / "rows.npy", whole.features.numpy())
    return NpyRows(tmp_path / "rows.npy", piece_bytes=9 * ROW_BYTES)


class CountedRows:
    """A source that notes what is read from it."""

    def __init__(self, source):
        self.source, self.reads, self.gathered = source, [], 0
        self.width, self.pieces = source.width, source.pieces

    def __len__(self):
        return len(self.source)

    def read(self, rows):
        self.reads.append(rows)
        return self.source.read(rows)

    def gather(self, idx):
        self.gathered += len(idx)
        return self.source.gather(idx)


def rows_to_ask(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        slice(None),
        slice(0, 0),
        slice(4, 31),
        slice(9, 18),
        slice(-5, None),
        torch.tensor([7]),
        torch.tensor([], dtype=torch.int64),
        torch.randperm(N, generator=generator)[:60],
        torch.tensor([5, 100, 5, 0]),
    ]


@pytest.mark.parametrize("cache_pieces", [0, 3, 12])
@pytest.mark.parametrize("reads_ahead", [True, False])
def test_values_are_those_from_memory(whole, source, cache_pieces, reads_ahead, monkeypatch):
    monkeypatch.setattr(stored_kernel, "GATHER_BYTES", 11 * ROW_BYTES)
    monkeypatch.setattr(stored_kernel, "ROW_MEMO_BYTES", 40 * ROW_BYTES)
    kernel = StoredKernel(source, cache_bytes=cache_pieces * 9 * ROW_BYTES, reads_ahead=reads_ahead)
    assert isinstance(kernel, Kernel)
    assert isinstance(kernel, FeatureKernel)
    assert (len(kernel), kernel.width, kernel.dtype) == (N, D, torch.float32)
    assert kernel.in_memory == (cache_pieces == 12)
    train = LinearKernel(paths(20, D, seed=2).float())
    for rows in rows_to_ask() + rows_to_ask(1):
        torch.testing.assert_close(kernel.rows(rows), whole.rows(rows), rtol=0, atol=0)
        for other in (train, kernel):
            for cols in (slice(None), slice(3, 17), torch.tensor([16, 2, 2])):
                partner = whole if other is kernel else train
                exact = whole.block64(rows, partner, cols)
                torch.testing.assert_close(
                    kernel.block64(rows, other, cols), exact, rtol=0, atol=1e-14
                )
                ours = kernel.block(rows, other, cols)
                torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-6)
    assert torch.equal(kernel.diagonal(), whole.diagonal())
    torch.testing.assert_close(
        kernel.mean_similarity(), whole.mean_similarity(), rtol=0, atol=1e-14
    )
    torch.testing.assert_close(
        train.block(slice(None), kernel, slice(None)),
        train.block(slice(None), whole, slice(None)),
        rtol=0,
        atol=1e-6,
    )


def test_a_part_and_the_whole_come_into_memory(whole, source):
    kernel = StoredKernel(source, cache_bytes=30 * ROW_BYTES, column_bytes=77)
    kernel.diagonal()
    idx = torch.tensor([55, 3, 99])
    part = kernel.take(idx)
    assert isinstance(part, LinearKernel)
    assert torch.equal(part.features, whole.features[idx])
    loaded = kernel.to_memory()
    assert torch.equal(loaded.features, whole.features)
    assert (loaded.normalise, loaded.column_bytes) == ("cosine", 77)


def test_kept_pieces_are_read_once_and_others_every_time(source):
    counted = CountedRows(source)
    kernel = StoredKernel(counted, cache_bytes=4 * 9 * ROW_BYTES, reads_ahead=False)
    for _ in range(3):
        for rows in kernel.chunks(4):
            kernel.rows(rows)
    starts = [rows.start for rows in counted.reads]
    assert [starts.count(9 * number) for number in range(12)] == [1] * 4 + [3] * 8
    kernel.diagonal()
    assert len(counted.reads) == 28


def test_the_next_piece_is_read_ahead_and_nothing_twice(source):
    counted = CountedRows(source)
    kernel = StoredKernel(counted)
    kernel.rows(slice(0, 2))
    kernel._coming[1].result()
    assert [rows.start for rows in counted.reads] == [0, 9]
    kernel.diagonal()
    assert sorted(rows.start for rows in counted.reads) == list(range(0, N, 9))


def test_rows_asked_for_again_are_not_read_again(whole, source):
    counted = CountedRows(source)
    kernel = StoredKernel(counted)
    for count in range(1, 30):
        picks = torch.arange(N - 3 * count, N, 3)
        assert torch.equal(kernel.rows(picks), whole.features[picks])
    assert counted.gathered == len(picks)


def test_the_oldest_remembered_rows_make_place(whole, source, monkeypatch):
    monkeypatch.setattr(stored_kernel, "ROW_MEMO_BYTES", 7 * ROW_BYTES)
    kernel = StoredKernel(source)
    generator = torch.Generator().manual_seed(0)
    for count in [1, 3, 7, 2, 8, 5, 1, 30, 7] * 5:
        idx = torch.randint(N, (count,), generator=generator)
        assert torch.equal(kernel.rows(idx), whole.features[idx])


def test_what_has_to_be_read_is_known(source):
    kernel = StoredKernel(source, cache_bytes=2 * 9 * ROW_BYTES, reads_ahead=False)
    assert kernel.share_to_read(torch.tensor([0, 9, 20])) == pytest.approx(27 / N)
    kernel.diagonal()
    assert kernel.share_to_read(torch.tensor([0, 17])) == 0.0
    assert kernel.share_to_read(torch.tensor([0, 20, 19, 30])) == pytest.approx(18 / N)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_bad_row_is_named(bad, whole, tmp_path):
    rows = whole.features.numpy().copy()
    rows[77, 3] = bad
    np.save(tmp_path / "bad.npy", rows)
    kernel = StoredKernel(NpyRows(tmp_path / "bad.npy", piece_bytes=9 * ROW_BYTES))
    kernel.rows(slice(0, 70))
    with pytest.raises(ArgumentError, match="structure 77 "):
        kernel.diagonal64()


def test_an_empty_source_is_an_empty_kernel(tmp_path):
    np.save(tmp_path / "none.npy", np.zeros((0, D), np.float32))
    kernel = StoredKernel(NpyRows(tmp_path / "none.npy"))
    assert len(kernel.diagonal()) == 0
    train = LinearKernel(noise(4, D, 0).float())
    assert kernel.block(slice(None), train, slice(None)).shape == (0, 4)
    assert train.block(slice(None), kernel, slice(None)).shape == (4, 0)


def test_unfit_arguments_are_refused(source):
    with pytest.raises(ArgumentError, match="allowed are 'cosine' and 'none'"):
        StoredKernel(source, normalise="l2")
    with pytest.raises(ArgumentError, match="cache_bytes=-1"):
        StoredKernel(source, cache_bytes=-1)
    gaps = CountedRows(source)
    gaps.pieces = lambda: source.pieces()[1:]
    with pytest.raises(ArgumentError, match="do not make up its 101 rows"):
        StoredKernel(gaps)


def test_kernels_that_do_not_match_are_refused(source):
    kernel = StoredKernel(source)
    for other, name in (
        (LinearKernel(noise(4, D, 0)), "dtype"),
        (LinearKernel(noise(4, D + 1, 0).float()), "width"),
        (LinearKernel(noise(4, D, 0).float(), normalise="none"), "normalise"),
    ):
        with pytest.raises(ArgumentError, match=f"differ in {name}"):
            kernel.block(slice(None), other, slice(None))
    with pytest.raises(ArgumentError, match="cannot be paired with a RbfKernel"):
        kernel.block(slice(None), RbfKernel(noise(4, D, 0)), slice(None))
