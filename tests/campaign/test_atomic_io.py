from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelwise.campaign.atomic_io import (
    SpareSpace,
    append_line,
    read_arrays,
    read_json,
    read_log,
    repair_log,
    write_arrays,
    write_json,
)
from labelwise.campaign.errors import DamagedStateError
from labelwise.errors import WriteError
from labelwise.runtime.files import write_bytes

RECORDS = [{"number": i, "text": "häß\n", "value": i / 7} for i in range(4)]


def fill(folder: Path) -> None:
    with pytest.raises(OSError, match="No space"), (folder / "filler").open("wb") as stream:
        while True:
            stream.write(b"x" * 4096)


def test_lines_come_back_exactly(tmp_path: Path) -> None:
    for record in RECORDS:
        append_line(tmp_path / "log", record)
    assert read_log(tmp_path / "log") == RECORDS
    assert read_log(tmp_path / "none") == []


@given(cut=st.integers(0, 200), tail=st.sampled_from([b"", b"\0" * 9, b'{"a', b"\n", b"\0\n"]))
def test_a_log_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int, tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("cut") / "log"
    ends = []
    for record in RECORDS:
        append_line(path, record)
        ends.append(path.stat().st_size)
    content = path.read_bytes()[:cut] + tail
    path.write_bytes(content)
    n_whole = sum(end <= cut for end in ends)
    if tail == b"\n" and cut == ends[min(n_whole, 3)] - 1:
        n_whole += 1  # the newline was all that was missing
    assert read_log(path) == RECORDS[:n_whole]
    repair_log(path)
    append_line(path, {"after": True})
    assert read_log(path) == [*RECORDS[:n_whole], {"after": True}]


def test_damage_inside_a_log_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for record in RECORDS:
        append_line(path, record)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{broken\n" + lines[2])
    with pytest.raises(DamagedStateError, match="line 2 is not JSON"):
        read_log(path)


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"value": 0.1})
    write_json(tmp_path / "a" / "b.json", {"value": 0.2})
    assert read_json(tmp_path / "a" / "b.json") == {"value": 0.2}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]
    with pytest.raises(DamagedStateError, match="cannot read"):
        read_json(tmp_path / "c.json")


def test_a_line_for_which_there_is_no_space_leaves_the_log_as_it_was(small_disk: Path) -> None:
    log = small_disk / "log"
    append_line(log, RECORDS[0])
    fill(small_disk)
    with pytest.raises(WriteError, match="No space left"):
        append_line(log, {"text": "x" * 20_000})
    assert read_log(log) == RECORDS[:1]
    with pytest.raises(WriteError, match="No space left"):
        write_bytes(small_disk / "file", b"x" * 20_000, durable=True)
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler", "log"]


def test_the_last_result_is_written_on_a_full_disk(small_disk: Path) -> None:
    log = small_disk / "log"
    spare = SpareSpace(small_disk, 1 << 16)
    spare.append_line(log, RECORDS[0])
    fill(small_disk)
    big = {"text": "x" * 20_000}
    with pytest.raises(WriteError, match=r"No space left.*what was finished is safe"):
        spare.append_line(log, big)
    assert read_log(log) == [RECORDS[0], big]
    fill(small_disk)
    with pytest.raises(WriteError, match="the last result is lost"):
        spare.append_line(log, big)
    assert read_log(log) == [RECORDS[0], big]


ARRAYS = {"rows": np.linspace(0.0, 1.0, 300).reshape(100, 3), "places": np.arange(7)}


def test_arrays_come_back_exactly(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    found = read_arrays(tmp_path / "a.npz")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert read_arrays(tmp_path / "none.npz") == {}


def test_damaged_arrays_are_told(tmp_path: Path) -> None:
    """Cut anywhere, a byte changed anywhere, and a pickle: an error or the same arrays."""
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedStateError, match="cannot be read"):
            read_arrays(path)
    n_told = 0
    for place in range(0, len(whole), 61):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            found = read_arrays(path)
        except DamagedStateError:
            n_told += 1
        else:
            assert all(np.array_equal(found[name], ARRAYS[name]) for name in found)
    assert n_told > 20
    np.savez(path, rows=np.array([Path("x")], dtype=object))
    with pytest.raises(DamagedStateError, match="cannot be read"):
        read_arrays(path)
