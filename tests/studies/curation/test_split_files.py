from __future__ import annotations

import json
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import molecule

from labelwise.errors import WriteError
from labelwise.runtime.files import hash_file
from labelwise.studies.curation.split_files import MANIFEST, write_split


@pytest.fixture
def parts() -> dict[str, list[Atoms]]:
    return {"train": [molecule("H2O"), molecule("CH4")], "valid": [molecule("N2")], "test": []}


def test_files_and_manifest_agree(tmp_path: Path, parts: dict[str, list[Atoms]]) -> None:
    write_split(tmp_path / "new", parts, {"seed": 3})
    manifest = json.loads((tmp_path / "new" / MANIFEST).read_text())
    assert manifest["seed"] == 3
    assert {name: entry["structures"] for name, entry in manifest["files"].items()} == {
        "train.extxyz": 2,
        "valid.extxyz": 1,
    }
    for name, entry in manifest["files"].items():
        assert hash_file(tmp_path / "new" / name) == entry["sha256"]
    assert len(ase.io.read(tmp_path / "new" / "train.extxyz", ":")) == 2
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"train.extxyz", "valid.extxyz", MANIFEST}


def test_own_files_are_replaced_and_stale_ones_removed(
    tmp_path: Path, parts: dict[str, list[Atoms]]
) -> None:
    write_split(tmp_path, parts, {})
    write_split(tmp_path, {"train": parts["train"], "valid": [], "test": parts["valid"]}, {})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"train.extxyz", "test.extxyz", MANIFEST}


@pytest.mark.parametrize("name", ["train.extxyz", "test.extxyz", MANIFEST])
def test_foreign_files_are_not_replaced(
    tmp_path: Path, parts: dict[str, list[Atoms]], name: str
) -> None:
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(WriteError, match=f"{name} exists.*--force"):
        write_split(tmp_path, parts, {})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine\n"}
    write_split(tmp_path, parts, {}, force=True)
    assert len(ase.io.read(tmp_path / "train.extxyz", ":")) == 2


def test_a_split_that_was_edited_is_not_replaced(
    tmp_path: Path, parts: dict[str, list[Atoms]]
) -> None:
    write_split(tmp_path, parts, {})
    with (tmp_path / "valid.extxyz").open("a") as stream:
        stream.write("\n")
    with pytest.raises(WriteError, match=r"valid.extxyz exists and is not what"):
        write_split(tmp_path, parts, {})


def test_a_failure_leaves_nothing_behind(tmp_path: Path, parts: dict[str, list[Atoms]]) -> None:
    write_split(tmp_path, parts, {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_split(tmp_path, {"train": parts["valid"]}, {"bad": float("nan")})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
