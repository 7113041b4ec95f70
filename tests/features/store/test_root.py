"""What is in a folder is said in words; nothing that is not ours is touched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from labelwise.errors import ArgumentError, LabelwiseWarning, ReadError
from labelwise.features.store import FeatureStore
from labelwise.features.store.names import make_temporary_name
from labelwise.features.store.sealing import make_group_metadata
from tests.features.store.stores import IDENTITY, key_of, make_store

HARM: dict[str, Callable[[Path], object]] = {
    "removed": lambda root: root.unlink(),
    "empty": lambda root: root.write_bytes(b""),
    "cut": lambda root: root.write_bytes(root.read_bytes()[:200]),
    "zeros": lambda root: root.write_bytes(b"\0" * 500),
    "altered": lambda root: root.write_text(root.read_text().replace("ntk-e", "ntk-f")),
    "foreign": lambda root: root.write_text('{"zarr_format": 3, "node_type": "group"}'),
    "list": lambda root: root.write_text("[1, 2]"),
}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_the_root_is_made_anew_from_a_chunk(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = make_store(tmp_path / "s").path
    before = snapshot(path)
    (path / "c000000" / "zarr.json").write_text("{")
    harm(path / "zarr.json")
    said: list[str] = []
    store = FeatureStore.open(path, IDENTITY, say=said.append)
    assert len(said) == 2
    assert "made anew from an intact chunk" in said[0]
    assert "chunk c000000" in said[1]
    assert store.identity == IDENTITY
    assert len(store) == 6
    assert snapshot(path)["zarr.json"] == before["zarr.json"]
    assert FeatureStore.open(path, IDENTITY).identity == IDENTITY


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_when_nothing_is_intact(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = make_store(tmp_path / "s").path
    harm(path / "zarr.json")
    for chunk in path.glob("c*"):
        (chunk / "zarr.json").unlink()
    before = snapshot(path)
    with pytest.raises(ReadError, match="no chunk of the feature store is intact; remove the fold"):
        FeatureStore.open(path, IDENTITY, create=True)
    assert snapshot(path) == before


def test_chunks_of_two_stores_and_no_root(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s").path
    other = make_store(tmp_path / "t", identity=replace(IDENTITY, model="other")).path
    shutil.copytree(other / "c000000", path / "c000009")
    (path / "zarr.json").unlink()
    with pytest.raises(ReadError, match="of 2 different stores"):
        FeatureStore.open(path)


def test_messages_are_warnings_if_nobody_listens(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s").path
    (path / "zarr.json").unlink()
    with pytest.warns(LabelwiseWarning, match="is missing; it is made anew"):
        FeatureStore.open(path)


@pytest.mark.parametrize("create", [False, True])
def test_another_identity_is_refused(tmp_path: Path, create: bool) -> None:
    path = make_store(tmp_path / "s").path
    before = snapshot(path)
    other = replace(IDENTITY, model="xyz", representation="activation", storage_dtype="float16")
    with pytest.raises(
        ArgumentError,
        match="holds other rows: another model, representation was ntk-e and is activation, "
        "storage_dtype was float32 and is float16; choose another folder",
    ):
        FeatureStore.open(path, other, create=create)
    assert snapshot(path) == before


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s").path
    record = {**IDENTITY.to_record(), "format_version": 7}
    (path / "zarr.json").write_bytes(make_group_metadata(record))
    with pytest.raises(ReadError, match="has format 7"):
        FeatureStore.open(path)


def test_no_store_is_made_unasked(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ReadError, match="there is no feature store"):
            FeatureStore.open(path, IDENTITY)
        with pytest.raises(ArgumentError, match="needs an identity"):
            FeatureStore.open(path, create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_made_where_nothing_is(tmp_path: Path) -> None:
    # What a process leaves that was killed as it made the root.
    (tmp_path / ".zarr.json.abc").write_text("{")
    for path in (tmp_path, tmp_path / "a" / "b"):
        assert len(FeatureStore.open(path, IDENTITY, create=True)) == 0
        assert len(FeatureStore.open(path, IDENTITY, create=True)) == 0
        assert len(FeatureStore.open(path)) == 0


@pytest.mark.parametrize("kind", ["file", "folder", "zarr group", "zarr array", "JSON"])
def test_what_is_not_ours_is_not_touched(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "file":
        path.write_text("mine")
    elif kind == "zarr group":
        zarr.create_group(str(path), attributes={"mine": 1})
    elif kind == "zarr array":
        zarr.create_array(str(path), data=np.arange(3))
    else:
        path.mkdir()
        (path / ("a.txt" if kind == "folder" else "zarr.json")).write_text(json.dumps({}))
    before = snapshot(tmp_path)
    for create in (False, True):
        with pytest.raises(ReadError, match=r"choose another path"):
            FeatureStore.open(path, IDENTITY, create=create)
    assert snapshot(tmp_path) == before


def test_leftovers_of_the_dead_alone_are_removed(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s").path
    alive = make_temporary_name()
    dead = alive.replace(f"-{os.getpid()}-", "-4194999-")
    for name in (alive, dead):
        (path / name).mkdir()
        (path / name / "zarr.json").write_text("{")
    FeatureStore.open(path)
    assert (path / alive).exists()
    assert not (path / dead).exists()


def test_a_chunk_of_another_store_is_set_aside(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s", 4, 4).path
    other = make_store(tmp_path / "t", identity=replace(IDENTITY, model="other")).path
    shutil.copytree(other / "c000001", path / "c000007")
    said: list[str] = []
    store = FeatureStore.open(path, say=said.append)
    assert len(said) == 1
    assert "c000007" in said[0]
    assert "of another store: another model" in said[0]
    assert store.find(key_of(np.arange(8))).tolist() == [0, 1, 2, 3, -1, -1, -1, -1]
