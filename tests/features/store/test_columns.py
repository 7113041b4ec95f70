from __future__ import annotations

from dataclasses import fields, replace

import google_crc32c
import numpy as np
import pytest

from labelwise.errors import ArgumentError
from labelwise.features.store import RowColumns
from labelwise.features.store.columns import checksum_rows, column_dtype, describe_fields
from tests.features.store.stores import columns_of, row_of


@pytest.mark.parametrize("name", [field.name for field in fields(RowColumns)])
def test_columns_must_have_as_many_rows(name: str) -> None:
    columns = columns_of(np.arange(4))
    with pytest.raises(ArgumentError, match=f"'{name}': 3.*must have as many"):
        replace(columns, **{name: getattr(columns, name)[:3]})


def test_the_layout_has_no_gaps() -> None:
    described = describe_fields(3)
    assert sum(int(str(n_bytes)) for *_, n_bytes in described) == column_dtype(3).itemsize
    assert described[1] == ["norms", "<f8", 3, 24]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_checksums_are_of_the_bytes(dtype: type[np.generic]) -> None:
    rows = row_of(np.arange(5)).astype(dtype)
    expected = [google_crc32c.value(row.tobytes()) for row in rows]
    assert checksum_rows(rows).tolist() == expected
