from __future__ import annotations

import google_crc32c
import numpy as np
import pytest

from labelwise.features.store.columns import checksum_rows, column_dtype, describe_fields
from tests.features.store.stores import row_of


def test_the_layout_has_no_gaps() -> None:
    described = describe_fields(3)
    assert sum(int(str(n_bytes)) for *_, n_bytes in described) == column_dtype(3).itemsize
    assert described[1] == ["norms", "<f8", 3, 24]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_checksums_are_of_the_bytes(dtype: type[np.generic]) -> None:
    rows = row_of(np.arange(5)).astype(dtype)
    expected = [google_crc32c.value(row.tobytes()) for row in rows]
    assert checksum_rows(rows).tolist() == expected
