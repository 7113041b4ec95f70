from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labelwise.features.store.names import (
    bad_name,
    chunk_name,
    is_abandoned,
    list_bad_names,
    list_chunk_numbers,
    make_temporary_name,
    next_chunk_number,
    read_chunk_number,
)


@pytest.mark.parametrize("number", [0, 12, 999_999, 1_000_000, 12_345_678])
def test_names_of_chunks_come_back(number: int) -> None:
    assert read_chunk_number(chunk_name(number)) == number


@pytest.mark.parametrize("name", ["c12", "c00000x", "bc000000", ".bad-c000001-1", "zarr.json"])
def test_other_names_are_no_chunks(name: str) -> None:
    assert read_chunk_number(name) == -1


def test_a_number_is_never_given_again(tmp_path: Path) -> None:
    assert next_chunk_number(tmp_path) == 0
    for name in (chunk_name(1), chunk_name(1_000_000), bad_name(3, 2), "other"):
        (tmp_path / name).mkdir()
    assert list_chunk_numbers(tmp_path) == [1, 1_000_000]
    assert next_chunk_number(tmp_path) == 1_000_001
    (tmp_path / bad_name(1_000_005, 1)).mkdir()
    assert next_chunk_number(tmp_path) == 1_000_006
    assert list_bad_names(tmp_path) == [bad_name(3, 2), bad_name(1_000_005, 1)]


def test_who_is_gone(tmp_path: Path) -> None:
    ours = tmp_path / make_temporary_name()
    code = "from labelwise.features.store.names import make_temporary_name as m; print(m())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    theirs = tmp_path / done.stdout.strip()
    elsewhere = tmp_path / ".tmp-other-host.1-1-abcdef"
    for folder in (ours, theirs, elsewhere):
        folder.mkdir()
    assert not is_abandoned(ours)
    assert is_abandoned(theirs)
    assert not is_abandoned(elsewhere)
    two_days_ago = time.time() - 2 * 86400
    os.utime(elsewhere, (two_days_ago, two_days_ago))
    assert is_abandoned(elsewhere)
    assert not is_abandoned(tmp_path / "vanished")
