from __future__ import annotations

import numpy as np
import pytest

from labelwise.errors import ArgumentError
from labelwise.kernels.stored import RowSource, slice_bounds
from tests.features.npy_rows import NpyRows


def test_the_source_of_other_tests_is_one(rng, tmp_path):
    rows = rng.normal(size=(37, 5)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    source = NpyRows(tmp_path / "rows.npy", piece_bytes=200)
    assert isinstance(source, RowSource)
    assert (len(source), source.width) == (37, 5)
    assert source.pieces() == [slice(0, 10), slice(10, 20), slice(20, 30), slice(30, 37)]
    np.testing.assert_array_equal(source.read(slice(8, 23)), rows[8:23])
    np.testing.assert_array_equal(source.read(slice(None)), rows)
    for idx in ([3], [], [5, 6, 7, 2, 36, 35, 5], rng.permutation(37)):
        np.testing.assert_array_equal(source.gather(np.array(idx, dtype=np.int64)), rows[idx])


def test_slices_with_steps_are_refused():
    assert slice_bounds(slice(-3, None), 10) == (7, 10)
    assert slice_bounds(slice(5, 2), 10) == (5, 5)
    with pytest.raises(ArgumentError, match="step 2"):
        slice_bounds(slice(0, 9, 2), 10)
