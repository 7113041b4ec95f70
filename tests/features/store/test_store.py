"""What a store finds, loses and gets back."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelwise.errors import ArgumentError, ReadError
from labelwise.features.store import Damage, DamagedChunkError, FeatureStore, verify_store
from tests.features.store.stores import IDENTITY, key_of, make_store, row_of


def test_a_store_in_words(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    described = store.describe()
    n_bytes = sum(p.stat().st_size for p in store.path.glob("c*/**/*") if p.is_file())
    assert described == {
        "identity": IDENTITY.to_record(),
        "rows": 10,
        "chunks": 3,
        "bytes": n_bytes,
        "damaged": [],
    }
    assert store.identity == IDENTITY
    assert store.path == tmp_path / "s"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_come_back(tmp_path: Path, dtype: str) -> None:
    identity = replace(IDENTITY, storage_dtype=dtype)
    made = make_store(tmp_path / "s", identity=identity)
    found = FeatureStore.open(tmp_path / "s", identity)
    rows = np.concatenate([found.read_chunk(number) for number in found.chunk_numbers])
    exact = row_of(np.arange(10))
    norms = found.read_norms(np.arange(10))
    assert np.array_equal(norms, made.read_norms(np.arange(10)))
    restored = rows * np.repeat(norms, [5, 3], axis=1)
    tolerance = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    np.testing.assert_allclose(restored, exact, rtol=tolerance, atol=1e-4)


def test_norms_come_in_the_order_asked_for(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    order = np.array([9, 0, 5, 5, 3])
    norms = np.linalg.norm(row_of(order)[:, :5].astype(np.float64), axis=1)
    np.testing.assert_allclose(store.read_norms(order)[:, 0], norms, rtol=1e-12)
    assert store.read_norms(order[:0]).shape == (0, 2)


def test_the_first_of_several_rows_is_found(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    numbers = np.array([20, 3, 20, 9])
    store.append_rows(row_of(numbers), key_of(numbers))
    assert store.find(key_of(np.array([3, 9, 20, 21]))).tolist() == [3, 9, 10, -1]
    again = FeatureStore.open(store.path)
    assert again.find(key_of(np.array([3, 9, 20, 21]))).tolist() == [3, 9, 10, -1]
    again.set_aside(0)
    assert again.find(key_of(np.array([3, 9, 20, 2]))).tolist() == [11, 9, 10, -1]


def test_only_what_is_bad_is_computed_again(tmp_path: Path) -> None:
    """A chunk found damaged while it is read: set aside, its rows appended, all as before."""
    store = make_store(tmp_path / "s")
    numbers = np.arange(10)
    before = store.view(store.find(key_of(numbers))).read(slice(None))
    path = store.path / "c000001/features/c/0/0"
    content = bytearray(path.read_bytes())
    content[17] ^= 4
    path.write_bytes(content)
    assert [damage.number for damage in verify_store(store.path)] == [1]
    assert isinstance(verify_store(store.path)[0], Damage)
    with pytest.raises(DamagedChunkError) as caught:
        store.view(store.find(key_of(numbers))).read(slice(None))
    store.set_aside(caught.value.number)
    assert store.chunk_numbers == [0, 2]
    assert verify_store(store.path) == []
    assert store.describe()["damaged"] == [".bad-c000001-1"]
    places = store.find(key_of(numbers))
    lost = numbers[places < 0]
    assert lost.tolist() == [4, 5, 6, 7]
    assert places[8] == 8  # places of other chunks stay
    with pytest.raises(ArgumentError, match="c000001, which was set aside; find the keys again"):
        store.view(np.arange(10))
    assert store.append_rows(row_of(lost), key_of(lost)) == 3
    for each in (store, FeatureStore.open(store.path, IDENTITY)):
        assert len(each) == 10
        after = each.view(each.find(key_of(numbers))).read(slice(None))
        assert np.array_equal(after, before)


def test_damaged_columns_are_set_aside_at_once(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s", 30, 3).path
    (path / "c000001/columns/c/0/0").write_bytes(b"nonsense")
    (path / "c000003/zarr.json").unlink()
    (path / "c000004/features/c/0/0").unlink()
    os.truncate(path / "c000006/features/c/0/0", 20)
    shutil.rmtree(path / "c000008/columns")
    (path / "c000009").rename(path / "elsewhere")
    (path / "c000009").write_text("a file")
    said: list[str] = []
    store = FeatureStore.open(path, say=said.append)
    assert store.chunk_numbers == [0, 2, 5, 7]
    assert [words.split()[1] for words in said] == [
        f"c00000{number}" for number in (1, 3, 4, 6, 8, 9)
    ]
    assert all("computed again" in words for words in said)
    assert len(list(path.glob(".bad-*"))) == 6
    assert len(FeatureStore.open(path)) == 12
    store.refresh()
    assert len(store) == 12


def test_what_other_processes_add_is_taken_in(tmp_path: Path) -> None:
    first = make_store(tmp_path / "s")
    second = FeatureStore.open(tmp_path / "s", IDENTITY)
    for store, numbers in ((first, np.arange(10, 13)), (second, np.arange(13, 19))):
        store.append_rows(row_of(numbers), key_of(numbers))
    assert (len(first), len(second)) == (13, 16)
    for store in (first, second):
        store.refresh()
        assert len(store) == 19
        places = store.find(key_of(np.arange(19)))
        assert sorted(places.tolist()) == list(range(19))
        rows = store.view(places).read(slice(None))
        expected = row_of(np.arange(19))[:, :5]
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(rows[:, :5], expected, rtol=1e-6)


def test_a_chunk_that_another_process_set_aside(tmp_path: Path) -> None:
    first = make_store(tmp_path / "s")
    second = FeatureStore.open(tmp_path / "s")
    first.set_aside(1)
    with pytest.raises(DamagedChunkError, match="No such file"):
        second.read_chunk(1)
    second.set_aside(1)
    assert second.chunk_numbers == [0, 2]
    assert second.describe()["damaged"] == [".bad-c000001-1"]


def test_a_store_that_may_only_be_read(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s").path
    (path / "c000001/columns/c/0/0").write_bytes(b"")
    (path / "zarr.json").write_bytes(b"")
    mounted = subprocess.run(
        ["mount", "--bind", "-o", "ro", str(path), str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a read-only mount is not to be had: {mounted.stderr.decode().strip()}")
    try:
        said: list[str] = []
        store = FeatureStore.open(path, IDENTITY, say=said.append)
        store.refresh()
        assert store.find(key_of(np.arange(10))).tolist() == [0, 1, 2, 3, -1, -1, -1, -1, 4, 5]
        read_only = os.strerror(errno.EROFS)
        assert ["Read-only" in words for words in said] == [False, True, True, False]
        assert read_only in said[1]
        assert store.view(np.arange(6)).read(slice(None)).shape == (6, 8)
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_chunk_that_may_not_be_read_is_not_damaged(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s").path
    code = (
        "import os; from pathlib import Path; from labelwise.features.store import FeatureStore;"
        "os.setuid(65534); FeatureStore.open(Path())"
    )
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    (path / "c000001/zarr.json").chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=False
    )
    assert "ReadError: cannot read the feature store" in done.stderr
    assert "Permission denied" in done.stderr
    assert len(FeatureStore.open(path)) == 10


def test_a_store_that_vanishes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    shutil.rmtree(store.path)
    with pytest.raises(ReadError, match="cannot read the feature store"):
        verify_store(store.path)


def test_a_chunk_is_few_files(tmp_path: Path) -> None:
    """A store of thousands of chunks is opened with a handful of small reads for each."""
    store = make_store(tmp_path / "s")
    files = [path for path in (store.path / "c000000").rglob("*") if path.is_file()]
    assert len(files) == 5
