from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelwise.campaign import kept
from labelwise.campaign.kept import KeptArrays, digest


def test_arrays_come_back_if_they_were_made_of_the_same(tmp_path: Path) -> None:
    store = KeptArrays(tmp_path / "report")
    assert store.load("a", "x") is None
    store.save("a", "x", {"numbers": np.arange(3), "names": np.array(["ä", "b"])})
    found = store.load("a", "x")
    assert found is not None
    assert found["numbers"].tolist() == [0, 1, 2]
    assert found["names"].tolist() == ["ä", "b"]
    assert store.load("a", "y") is None
    assert store.refusal == ""


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"not at all"])
def test_damaged_files_count_as_absent(tmp_path: Path, content: bytes) -> None:
    store = KeptArrays(tmp_path)
    store.save("a", "x", {"numbers": np.arange(3)})
    (tmp_path / "a.npz").write_bytes(content)
    assert store.load("a", "x") is None


def test_half_a_file_counts_as_absent(tmp_path: Path) -> None:
    store = KeptArrays(tmp_path)
    store.save("a", "x", {"numbers": np.arange(300)})
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    assert store.load("a", "x") is None


def test_pickles_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", made_of=np.array("x"), objects=np.array([{}], dtype=object))
    assert KeptArrays(tmp_path).load("a", "x") is None


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file is in the way")
    store = KeptArrays(tmp_path / "report")
    store.save("a", "x", {"numbers": np.arange(3)})
    assert "cannot write" in store.refusal
    assert store.load("a", "x") is None


def test_too_large_arrays_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_BYTES", 20)
    store = KeptArrays(tmp_path)
    store.save("a", "x", {"numbers": np.arange(3, dtype=np.int64)})
    assert list(tmp_path.iterdir()) == []


def test_digests_tell_content_apart() -> None:
    assert digest("a", {"b": 1, "c": 2}) == digest("a", {"c": 2, "b": 1})
    assert digest("a", "b") != digest("ab")
    assert digest("\udce4") != digest("ä")
