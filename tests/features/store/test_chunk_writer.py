"""Chunks are on disk whole or not at all, whoever writes and whatever happens."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from labelwise.errors import ArgumentError, WriteError
from labelwise.features.store import FeatureStore, verify_store
from labelwise.features.store.chunk_writer import append_chunk
from tests.features.store.stores import (
    IDENTITY,
    append,
    key_of,
    make_store,
    row_of,
)

ROOT = Path(__file__).parents[3]
# Appends rows of numbers from argv[2] on, ten at a time, until argv[3].
WRITE = """
import sys
from pathlib import Path
import numpy as np
from labelwise.features.store.chunk_writer import append_chunk
from tests.features.store.stores import IDENTITY, key_of, row_of

store, start, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for first in range(start, stop, 10):
    numbers = np.arange(first, min(first + 10, stop))
    append_chunk(store, IDENTITY, row_of(numbers), key_of(numbers))
"""


def start_writer(store: Path, start: int, stop: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, str(store), str(start), str(stop)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def check_rows(store: FeatureStore, numbers: np.ndarray) -> None:
    """Check that the store has the right row for each of these numbers."""
    places = store.find(key_of(numbers))
    assert (places >= 0).all()
    rows = store.view(places).gather(np.arange(len(numbers)))
    expected = row_of(numbers)
    for part in (slice(0, 5), slice(5, 8)):
        expected[:, part] /= np.linalg.norm(expected[:, part], axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


@pytest.mark.parametrize("part", [1, 3, 4, 9, 30])
def test_what_is_appended_together_is_a_chunk(tmp_path: Path, part: int) -> None:
    store = FeatureStore.open(tmp_path / "s", IDENTITY, create=True)
    numbers = append(store, np.arange(30), part)
    assert numbers == store.chunk_numbers == list(range(-(-30 // part)))
    sizes = [len(store.read_chunk(number)) for number in numbers]
    assert set(sizes[:-1]) <= {part} and sum(sizes) == 30
    again = FeatureStore.open(tmp_path / "s", IDENTITY)
    for each in (store, again):
        assert len(each) == 30
        assert np.array_equal(each.find(key_of(np.arange(30))), np.arange(30))
        check_rows(each, np.arange(30))


def test_rows_must_fit_the_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    numbers = np.arange(10, 13)
    broken = row_of(numbers)
    broken[1, 1] = np.nan
    with pytest.raises(ArgumentError, match="3 rows and keys of 2"):
        store.append_rows(row_of(numbers), key_of(numbers[:2]))
    with pytest.raises(ArgumentError, match="the rows 9"):
        store.append_rows(row_of(numbers, 9), key_of(numbers))
    with pytest.raises(ArgumentError, match=r"row 1 .* not finite"):
        store.append_rows(broken, key_of(numbers))
    assert len(store) == 10


@pytest.mark.parametrize("chunk_rows", [20, 200, 2000])
def test_a_full_disk(small_disk: Path, chunk_rows: int) -> None:
    store = FeatureStore.open(small_disk / "s", IDENTITY, create=True)
    numbers = np.arange(0, 10_000)
    with pytest.raises(WriteError, match=r"cannot write to the feature store .*No space left"):
        append(store, numbers, chunk_rows)
    n_rows = len(store)
    assert n_rows == len(store.chunk_numbers) * chunk_rows
    assert not [path.name for path in store.path.iterdir() if path.name.startswith(".tmp")]
    again = FeatureStore.open(small_disk / "s", IDENTITY)
    assert verify_store(again.path) == []
    if n_rows:
        check_rows(again, numbers[:n_rows])
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    append(store, numbers[n_rows : n_rows + chunk_rows], chunk_rows)
    check_rows(store, numbers[: n_rows + chunk_rows])


def test_a_full_disk_when_a_store_is_made(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"), (small_disk / "filler").open("wb") as stream:
        while True:
            stream.write(b"x" * 4096)
    with pytest.raises(WriteError, match="No space"):
        FeatureStore.open(small_disk / "s", IDENTITY, create=True)
    (small_disk / "filler").unlink()
    assert len(FeatureStore.open(small_disk / "s", IDENTITY, create=True)) == 0


@pytest.mark.thorough
def test_writers_that_are_killed_leave_whole_chunks(tmp_path: Path) -> None:
    path = tmp_path / "s"
    FeatureStore.open(path, IDENTITY, create=True)
    chooser = random.Random(0)
    n_before = n_unfinished = 0
    for attempt in range(6):
        process = start_writer(path, attempt * 100_000, (attempt + 1) * 100_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        # From within the first chunks to some way into the work.
        time.sleep(chooser.uniform(0.02, 0.8))
        process.kill()
        process.communicate()
        n_unfinished += len(list(path.glob(".tmp-*")))
        store = FeatureStore.open(path, IDENTITY)
        assert verify_store(store.path) == []
        n_new = len(store) - n_before
        assert n_new % 10 == 0
        check_rows(store, np.arange(n_new) + attempt * 100_000)
        assert {entry.name[0] for entry in path.iterdir()} <= {"z", "c"}
        n_before = len(store)
    assert n_before > 0
    assert n_unfinished > 0


def test_writers_at_once_take_numbers_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = FeatureStore.open(path, IDENTITY, create=True)
    writers = [start_writer(path, start, start + 200) for start in (0, 200, 400)]
    assert [(writer.communicate(), writer.returncode)[1] for writer in writers] == [0, 0, 0]
    store.refresh()
    assert store.chunk_numbers == list(range(60))
    check_rows(store, np.arange(600))


def test_a_number_that_was_taken_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another writer takes the number between the look and the rename."""
    store = make_store(tmp_path / "s", 4, 4)
    (store.path / "c000001").write_text("a file in the way")
    monkeypatch.setattr("labelwise.features.store.chunk_writer.next_chunk_number", lambda _: 0)
    numbers = np.arange(4, 7)
    assert store.append_rows(row_of(numbers), key_of(numbers)) == 2
    check_rows(store, np.arange(7))


def test_a_store_that_cannot_be_written_to(tmp_path: Path) -> None:
    numbers = np.arange(2)
    with pytest.raises(WriteError, match="No such file"):
        append_chunk(tmp_path / "none", IDENTITY, row_of(numbers), key_of(numbers))
    assert list(tmp_path.iterdir()) == []
