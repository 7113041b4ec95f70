"""Parts on disk: read back as written, refused under other settings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from labelwise.errors import ArgumentError, ReadError, WriteError
from labelwise.runtime.part_store import PartStore

SETTINGS = {"seed": 1, "levels": (0.5, 0.9), "pool": "abc"}


def make(folder: Path | None, force: bool = False, **changes: object) -> PartStore:
    return PartStore(folder, {**SETTINGS, **changes}, kind="a part of a test", force=force)


def test_parts_come_back(tmp_path: Path) -> None:
    store = make(tmp_path / "parts")
    assert store.read("one") is None
    store.write("one", {"value": 2.5, "missing": math.nan, "pairs": [(1, math.nan)]})
    assert make(tmp_path / "parts").read("one") == {
        "value": 2.5,
        "missing": None,
        "pairs": [[1, None]],
    }


def test_without_a_folder_nothing_is_kept() -> None:
    store = make(None)
    store.write("one", {"value": 1})
    assert store.read("one") is None


def test_other_settings_are_named(tmp_path: Path) -> None:
    make(tmp_path).write("one", {"value": 1})
    with pytest.raises(ArgumentError, match="seed was 1 and is 2, another pool"):
        make(tmp_path, seed=2, pool="def").read("one")
    assert make(tmp_path, force=True, seed=2).read("one") is None
    assert make(tmp_path).read("one") == {"value": 1}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": {}}', '{"result": {}}'])
def test_damaged_parts_are_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(content)
    with pytest.raises(ReadError, match="not a part of a test"):
        make(tmp_path).read("one")


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "parts"):
        with pytest.raises(WriteError, match="needs a folder"):
            make(folder)
