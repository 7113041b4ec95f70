"""A view gives the rows asked for, in any order and any pieces, from any thread or process."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError
from labelwise.features.representations.base import FeatureBlock
from labelwise.features.representations.normalisation import normalise_rows
from labelwise.features.store import DamagedChunkError, FeatureStore, StoreView, find_common_norms
from labelwise.features.store.chunk_writer import append_chunk
from tests.features.store.stores import (
    BLOCKS,
    IDENTITY,
    WIDTH,
    append,
    key_of,
    make_store,
    row_of,
)

N_ROWS = 57
DTYPES = ["float32", "float16", "bfloat16"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FeatureStore]:
    """Stores of 57 rows each: chunks of 20, 20 and 17 rows, and then of 3."""
    made = {}
    for dtype in DTYPES:
        path = tmp_path_factory.mktemp(dtype) / "s"
        store = make_store(path, N_ROWS, 20, replace(IDENTITY, storage_dtype=dtype))
        extra = np.arange(N_ROWS, N_ROWS + 15)
        append(store, extra, 3)
        made[dtype] = store
    return made


def rows_in_order(store: FeatureStore) -> np.ndarray:
    return np.concatenate([store.read_chunk(number) for number in store.chunk_numbers])


@given(
    places=st.lists(st.integers(0, N_ROWS + 14), max_size=90)
    | st.tuples(st.integers(0, 71), st.integers(0, 72)).map(lambda ends: list(range(*ends))),
    dtype=st.sampled_from(DTYPES),
    piece_rows=st.integers(1, 30),
    data=st.data(),
)
def test_views_in_any_order(
    stores: dict[str, FeatureStore],
    places: list[int],
    dtype: str,
    piece_rows: int,
    data: st.DataObject,
) -> None:
    store = stores[dtype]
    chosen = np.array(places, dtype=np.int64)
    expected = rows_in_order(store)[chosen]
    view = store.view(chosen, piece_bytes=piece_rows * WIDTH * 4)
    assert len(view) == len(chosen)
    assert view.width == WIDTH
    pieces = view.pieces()
    assert [i for piece in pieces for i in range(piece.start, piece.stop)] == list(range(len(view)))
    assert all(0 < piece.stop - piece.start <= piece_rows for piece in pieces)
    for piece in data.draw(st.permutations(pieces)):
        rows = view.read(piece)
        assert rows.dtype == np.float32
        assert np.array_equal(rows, expected[piece])
        rows[:] = np.nan  # what is read belongs to the reader
    idx = data.draw(st.lists(st.integers(0, len(chosen) - 1), max_size=30)) if places else []
    rows = view.gather(np.array(idx, dtype=np.int64))
    assert np.array_equal(rows, expected[idx].reshape(-1, WIDTH))
    start, stop = data.draw(st.tuples(*[st.integers(-5, 95)] * 2))
    assert np.array_equal(view.read(slice(start, stop)), expected[start:stop])


def test_unit_rows_are_those_in_memory(stores: dict[str, FeatureStore]) -> None:
    numbers = np.random.default_rng(0).permutation(N_ROWS)
    store = stores["float32"]
    rows = row_of(numbers)
    normalise_rows(np.empty((0, WIDTH), np.float32), rows, [FeatureBlock(*b) for b in BLOCKS])
    found = store.view(store.find(key_of(numbers))).read(slice(None))
    assert np.array_equal(found.view(np.uint32), rows.view(np.uint32))


@pytest.mark.parametrize("normalise", ["cosine", "none"])
def test_weights_and_lengths(tmp_path: Path, normalise: str) -> None:
    blocks = ((5, 0.3), (3, 0.7))
    store = make_store(tmp_path / "s", 40, 15, replace(IDENTITY, blocks=blocks))
    shuffled = np.random.default_rng(0).permutation(40)
    pool, train = shuffled[:28], shuffled[28:]
    pool_places, train_places = (store.find(key_of(numbers)) for numbers in (pool, train))
    common = None
    if normalise == "none":
        common = find_common_norms(store.read_norms(pool_places), store.read_norms(train_places))
    expected, train_rows = row_of(pool), row_of(train)
    weighted = [FeatureBlock(*block) for block in blocks]
    normalise_rows(train_rows, expected, weighted, normalise=normalise)
    view = store.view(pool_places, normalise=normalise, common_norms=common)
    np.testing.assert_allclose(view.read(slice(None)), expected, rtol=3e-7)
    np.testing.assert_allclose(view.gather(np.array([3])), expected[[3]], rtol=3e-7)
    again = view.read(slice(None))
    assert np.array_equal(view.read(slice(None)), again)


def test_pieces_end_with_chunks(stores: dict[str, FeatureStore]) -> None:
    view = stores["float32"].view(np.arange(72), piece_bytes=25 * WIDTH * 4)
    assert [(piece.start, piece.stop) for piece in view.pieces()] == [
        (0, 20),
        (20, 40),
        (40, 63),
        (63, 72),
    ]
    small = stores["float32"].view(np.arange(72), piece_bytes=1)
    assert len(small.pieces()) == 72


def test_a_million_scattered_rows_are_cut_quickly(stores: dict[str, FeatureStore]) -> None:
    places = np.random.default_rng(0).integers(0, 72, 1_000_000)
    pieces = stores["float32"].view(places, piece_bytes=1000 * WIDTH * 4).pieces()
    assert 1000 <= len(pieces) <= 2000


def test_threads_read_the_same(stores: dict[str, FeatureStore]) -> None:
    store = stores["bfloat16"]
    places = np.random.default_rng(0).integers(0, 72, 500)
    expected = rows_in_order(store)[places]
    view = store.view(places, piece_bytes=7 * WIDTH * 4)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(view.read, view.pieces() * 3))
        single = list(pool.map(lambda i: view.gather(np.array([i])), range(500)))
    assert np.array_equal(np.concatenate(found), np.concatenate([expected] * 3))
    assert np.array_equal(np.concatenate(single), expected)


def test_another_process_reads_the_same(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    view = stores["float16"].view(np.arange(71, -1, -1))
    view.read(slice(None))
    (tmp_path / "view").write_bytes(pickle.dumps(view))
    code = (
        "import pickle, sys; from pathlib import Path;"
        "view = pickle.loads(Path(sys.argv[1]).read_bytes());"
        "Path(sys.argv[2]).write_bytes(view.read(slice(None)).tobytes())"
    )
    paths = [str(tmp_path / "view"), str(tmp_path / "rows")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    found = np.frombuffer((tmp_path / "rows").read_bytes(), np.float32).reshape(-1, WIDTH)
    assert np.array_equal(found, view.read(slice(None)))


def test_a_pickle_is_small(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 1000, 1000)
    view = store.view(np.arange(1000))
    view.gather(np.arange(0, 1000, 2))
    assert len(pickle.dumps(view)) < 1000 * 8 + 2000


def test_arguments_are_checked(stores: dict[str, FeatureStore]) -> None:
    store = stores["float32"]
    view = store.view(np.arange(10))
    with pytest.raises(ArgumentError, match="from -1 to 3; those of the store's rows are 0 to 71"):
        store.view(np.array([3, -1]))
    with pytest.raises(ArgumentError, match="from 3 to 72"):
        store.view(np.array([3, 72]))
    with pytest.raises(ArgumentError, match="'none' needs the common norms"):
        store.view(np.arange(10), normalise="none")
    with pytest.raises(ArgumentError, match="'cosine' takes none"):
        store.view(np.arange(10), common_norms=np.ones(2))
    with pytest.raises(ArgumentError, match="'unit'"):
        store.view(np.arange(10), normalise="unit")
    with pytest.raises(ArgumentError, match="piece_bytes=0"):
        store.view(np.arange(10), piece_bytes=0)
    with pytest.raises(ArgumentError, match="step of 1"):
        view.read(slice(0, 10, 2))
    for bad in ([0, 10], [-1, 2]):
        with pytest.raises(ArgumentError, match="allowed are 0 to 9"):
            view.gather(np.array(bad))


def flip_row(store: Path, number: int, row: int) -> None:
    path = store / f"c{number:06d}/features/c/0/0"
    content = bytearray(path.read_bytes())
    content[row * WIDTH * 4 + 5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("n_asked", [1, 30])
def test_a_damaged_row_is_noticed(tmp_path: Path, n_asked: int) -> None:
    store = make_store(tmp_path / "s", 60, 30)
    view = store.view(np.arange(60))
    flip_row(store.path, 1, 4)
    asked = np.arange(34, 34 + min(n_asked, 26))
    with pytest.raises(DamagedChunkError, match="does not agree with its checksum") as caught:
        view.gather(asked)
    assert caught.value.number == 1
    if n_asked == 1:
        assert np.isfinite(view.gather(asked + 1)).all()


def test_a_view_does_not_read_another_chunk_of_the_same_number(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 20, 20)
    views: list[StoreView] = [store.view(np.arange(20)) for _ in range(2)]
    shutil.rmtree(store.path / "c000000")
    numbers = np.arange(100, 120)
    assert append_chunk(store.path, IDENTITY, row_of(numbers), key_of(numbers)) == 0
    for view, idx in zip(views, (np.arange(20), np.array([3])), strict=True):
        with pytest.raises(DamagedChunkError, match="another chunk than when the store was opened"):
            view.gather(idx)
