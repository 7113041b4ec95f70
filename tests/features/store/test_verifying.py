"""Every kind of damage is named, and looking for it changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelwise.cli import main
from labelwise.errors import ReadError
from labelwise.features.frames import FrameTable
from labelwise.features.store import FeatureStore, Identity, verify_store
from labelwise.structures.repeats import Fingerprints
from tests.features.store.stores import BLOCKS, key_of, make_store

HASH = "0" * 31 + "a"


def fill(path: Path) -> Path:
    """Make a store of three chunks and a listing, and return its folder."""
    store = make_store(path)
    numbers = np.arange(10)
    frames = np.arange(11)
    store.save_listing(
        HASH,
        FrameTable(
            np.concatenate([key_of(numbers), np.zeros((1, 16), np.uint8)]),
            Fingerprints(
                np.concatenate([key_of(numbers)[:, ::-1], np.zeros((1, 16), np.uint8)]),
                np.full(11, 100),  # large enough to be known by projections alone
                np.zeros((11, 8)),
                np.zeros(0),
            ),
            ("pool.extxyz",),
            np.zeros(11, np.int32),
            frames,
            frames,
            {10: ("no-atoms", "the frame is empty")},
        ),
    )
    return store.path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def replace_by_loop(path: Path) -> None:
    """Make a file unreadable for everybody, root too."""
    path.unlink()
    path.symlink_to(path.name)


def put_foreign_chunk(path: Path) -> None:
    other = make_store(path.with_name("other"), identity=Identity("ntk-e", BLOCKS, model="xyz"))
    (other.path / "c000000").rename(path / "c000007")


HARM: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "chunk without features": (
        lambda path: (path / "c000001/features/c/0/0").unlink(), "c000001", "No such file"),
    "chunk without array metadata": (
        lambda path: (path / "c000001/columns/zarr.json").unlink(), "c000001", "No such file"),
    "chunk without metadata": (
        lambda path: (path / "c000001/zarr.json").unlink(), "c000001", "No such file"),
    "empty chunk": (
        lambda path: [shutil.rmtree(path / "c000002"), (path / "c000002").mkdir()],
        "c000002", "No such file"),
    "chunk gone": (
        lambda path: shutil.rmtree(path / "c000002"), f"listings/{HASH}.listing", "2 rows"),
    "larger shape": (
        lambda path: edit(path / "c000001/features/zarr.json",
                          lambda array: array["shape"].__setitem__(0, 5)), "c000001", "shape"),
    "larger column shape": (
        lambda path: edit(path / "c000000/columns/zarr.json",
                          lambda array: array["shape"].__setitem__(0, 9)), "c000000", "shape"),
    "wrong dtype": (
        lambda path: edit(path / "c000001/features/zarr.json",
                          lambda array: array.__setitem__("data_type", "float64")),
        "c000001", "data_type"),
    "NaN in an array's metadata": (
        lambda path: edit(path / "c000001/features/zarr.json",
                          lambda array: array["attributes"].__setitem__("x", float("nan"))),
        "c000001", "NaN"),
    "NaN in the root": (
        lambda path: edit(path / "zarr.json", lambda group: group.__setitem__("x", float("nan"))),
        "zarr.json", "NaN"),
    "more in the root": (
        lambda path: edit(path / "zarr.json", lambda group: group["attributes"].update(x=1)),
        "zarr.json", "more"),
    "more in a chunk": (
        lambda path: edit(path / "c000000/zarr.json", lambda group: group.update(x=1)),
        "c000000", "more"),
    "no root": (lambda path: (path / "zarr.json").unlink(), "zarr.json", "No such file"),
    "root of text": (lambda path: (path / "zarr.json").write_text("text"), "zarr.json", "JSON"),
    "root flipped": (
        lambda path: edit(path / "zarr.json", lambda group: group["attributes"][
            "labelwise_feature_store"]["content"].update(model="abd")), "zarr.json", "checksum"),
    "bit of a row": (
        lambda path: flip(path / "c000001/features/c/0/0"), "c000001", "checksum"),
    "bit of a column": (
        lambda path: flip(path / "c000002/columns/c/0/0"), "c000002", "checksum"),
    "cut short": (
        lambda path: os.truncate(path / "c000001/features/c/0/0", 20), "c000001", "20 bytes"),
    "empty file": (
        lambda path: os.truncate(path / "c000001/columns/c/0/0", 0), "c000001", "0 bytes"),
    "longer": (
        lambda path: os.truncate(path / "c000001/columns/c/0/0", 9999), "c000001", "bytes"),
    "foreign file": (
        lambda path: (path / "notes.txt").write_text("mine"), "notes.txt", "does not belong"),
    "foreign file in a chunk": (
        lambda path: (path / "c000001/features/c/0/1").write_text("x"), "c000001",
        "features/c/0/1 does not belong"),
    "foreign listing": (
        lambda path: (path / "listings/mine").write_text("x"), "listings/mine", "not belong"),
    "damaged listing": (
        lambda path: flip(path / f"listings/{HASH}.listing"), f"listings/{HASH}.listing",
        "checksum"),
    "chunk of another model": (put_foreign_chunk, "c000007", "another model"),
    "chunk is a file": (
        lambda path: (path / "c000009").write_text("x"), "c000009", "Not a directory"),
    "unreadable": (
        lambda path: replace_by_loop(path / "c000001/features/c/0/0"), "c000001", "cannot read"),
}  # fmt: skip
#: What no repair can mend: it is not ours, or it may come back.
LEFT = {"foreign file", "foreign listing", "unreadable"}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_a_sound_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fill(tmp_path / "s")
    (path / ".tmp-elsewhere.1-1-abcd").mkdir()  # a writer of another machine
    before = snapshot(path)
    assert verify_store(path) == []
    assert main(["store", str(path), "--verify"]) == 0
    assert "everything was read and is as it was written" in capsys.readouterr().out
    assert snapshot(path) == before


@pytest.mark.parametrize("kind", HARM)
def test_damage_is_named_and_left_alone(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fill(tmp_path / "s")
    harm, name, reason = HARM[kind]
    harm(path)
    before = snapshot(path)
    damages = verify_store(path)
    assert [damage.name for damage in damages] == [name]
    assert reason in damages[0].reason
    for words in (["--verify"], ["--verify", "--json"], []):
        assert main(["store", str(path), *words]) == (1 if words or kind == "unreadable" else 0)
        captured = capsys.readouterr()
        assert not words or f"{name} is damaged" in captured.err.replace("\n", "")
        assert "is as it was written" not in captured.out
        assert snapshot(path) == before


@pytest.mark.parametrize("kind", HARM)
def test_repair_alone_sets_aside(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fill(tmp_path / "s")
    HARM[kind][0](path)
    assert main(["store", str(path), "--repair"]) == (1 if kind in LEFT else 0)
    shown = capsys.readouterr()
    assert HARM[kind][1] in shown.err.replace("\n", "")
    assert ("is as it was written" in shown.out) == (kind not in LEFT)
    if kind not in LEFT:
        assert main(["store", str(path), "--verify"]) == 0
        assert all(np.isfinite(store.read_chunk(n)).all()
                   for store in [FeatureStore.open(path)] for n in store.chunk_numbers)  # fmt: skip


def test_several_damages_are_all_named(tmp_path: Path) -> None:
    path = fill(tmp_path / "s")
    kinds = ("root of text", "empty file", "bit of a column", "foreign file", "damaged listing")
    for kind in kinds:
        HARM[kind][0](path)
    assert sorted(damage.name for damage in verify_store(path)) == sorted(
        HARM[kind][1] for kind in kinds
    )


@pytest.mark.parametrize("there", [False, True])
def test_what_is_no_store(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "notes.txt").write_text("mine")
    with pytest.raises(ReadError, match=r"feature store"):
        verify_store(tmp_path / "s")
    assert main(["store", str(tmp_path / "s"), "--verify"]) == 1
