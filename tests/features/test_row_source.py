from __future__ import annotations

import numpy as np
import pytest

from labelwise.errors import ArgumentError, ReadError
from labelwise.features.row_source import NpyRows, RowSource, slice_bounds


@pytest.fixture
def rows(rng):
    return rng.normal(size=(37, 5)).astype(np.float32)


@pytest.fixture
def source(rows, tmp_path):
    np.save(tmp_path / "rows.npy", rows)
    return NpyRows(tmp_path / "rows.npy", piece_bytes=200)


def test_rows_are_those_of_the_file(source, rows, rng):
    assert isinstance(source, RowSource)
    assert (len(source), source.width) == (37, 5)
    assert source.pieces() == [slice(0, 10), slice(10, 20), slice(20, 30), slice(30, 37)]
    np.testing.assert_array_equal(source.read(slice(8, 23)), rows[8:23])
    np.testing.assert_array_equal(source.read(slice(None)), rows)
    for idx in ([3], [], [5, 6, 7, 2, 36, 35, 5], rng.permutation(37)):
        np.testing.assert_array_equal(source.gather(np.array(idx, dtype=np.int64)), rows[idx])


def test_what_is_read_belongs_to_the_caller(source, rows):
    source.read(slice(0, 5))[:] = 7.0
    np.testing.assert_array_equal(source.read(slice(0, 5)), rows[:5])


def test_a_file_that_became_shorter_is_said(source, tmp_path):
    path = tmp_path / "rows.npy"
    path.write_bytes(path.read_bytes()[:-30])
    source.read(slice(0, 30))
    with pytest.raises(ReadError, match=r"rows\.npy ends too early"):
        source.read(slice(30, 37))
    path.unlink()
    with pytest.raises(ReadError, match=r"rows\.npy cannot be read"):
        source.gather(np.array([1]))


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4)), np.zeros(4, np.float32), np.zeros((4, 3), np.float32).T]
)
def test_other_arrays_are_refused(array, tmp_path):
    np.save(tmp_path / "other.npy", array)
    with pytest.raises(ReadError, match="allowed are C-ordered float32 arrays"):
        NpyRows(tmp_path / "other.npy")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.npy").write_text("no array")
    for name in ("text.npy", "absent.npy"):
        with pytest.raises(ReadError, match=f"{name} cannot be read as an .npy file"):
            NpyRows(tmp_path / name)


def test_slices_with_steps_are_refused():
    assert slice_bounds(slice(-3, None), 10) == (7, 10)
    assert slice_bounds(slice(5, 2), 10) == (5, 5)
    with pytest.raises(ArgumentError, match="step 2"):
        slice_bounds(slice(0, 9, 2), 10)
