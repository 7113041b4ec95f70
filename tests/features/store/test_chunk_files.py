"""A chunk is what was written, or it is said to be damaged; Zarr itself reads the same."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ReadError
from labelwise.features.store import DamagedChunkError, FeatureStore, verify_store
from labelwise.features.store.chunk_files import (
    read_columns,
    read_record,
    read_rows,
    read_some_rows,
    write_chunk,
)
from labelwise.features.store.columns import column_dtype
from tests.features.store.stores import IDENTITY, key_of, make_store, row_of

FILES = [
    "zarr.json",
    "features/zarr.json",
    "features/c/0/0",
    "columns/zarr.json",
    "columns/c/0/0",
]


@pytest.fixture
def chunk(tmp_path: Path) -> Path:
    """A chunk of ten rows."""
    return make_store(tmp_path / "store", chunk_rows=10).path / "c000000"


def read_all(folder: Path) -> tuple[object, ...]:
    """Read whatever a chunk holds as plain data."""
    record = read_record(folder)
    columns = read_columns(folder, record)
    some = np.array([7, 0, 7])
    return (
        record,
        columns.keys.tolist(),
        columns.norms.tolist(),
        read_rows(folder, record).tolist(),
        read_some_rows(folder, record, some, columns.row_checksums[some]).tolist(),
    )


def test_what_was_written_is_read(chunk: Path) -> None:
    record = read_record(chunk)
    assert record.identity == IDENTITY
    numbers = np.arange(10)
    found = read_columns(chunk, record)
    assert np.array_equal(found.keys, key_of(numbers))
    rows = row_of(numbers)
    np.testing.assert_allclose(found.norms[:, 1], np.linalg.norm(rows[:, 5:], axis=1), rtol=1e-6)
    stored = read_rows(chunk, record)
    np.testing.assert_allclose(stored[:, :5] * found.norms[:, :1], rows[:, :5], rtol=1e-6)
    some = np.array([7, 0, 7])
    few = read_some_rows(chunk, record, some, found.row_checksums[some])
    assert np.array_equal(few, stored[some])


def test_chunks_of_version_1_are_read(
    tmp_path: Path, chunk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have more columns of each row, in the middle, and names of files."""
    records = np.zeros(10, column_dtype(2, 1))
    new = read_columns(chunk, read_record(chunk))
    records["key"], records["norms"] = new.keys, new.norms
    for name in ("source_file", "source_frame", "projections", "species"):
        records[name] = 7
    monkeypatch.setattr("labelwise.features.store.identity.FORMAT_VERSION", 1)
    rows = read_rows(chunk, read_record(chunk))
    write_chunk(tmp_path / "c000007", IDENTITY, rows, records)
    monkeypatch.undo()
    record = read_record(tmp_path / "c000007")
    assert (record.version, record.identity) == (1, IDENTITY)
    old = read_columns(tmp_path / "c000007", record)
    for name in ("keys", "norms", "row_checksums"):
        assert np.array_equal(getattr(old, name), getattr(new, name))
    (tmp_path / "c000007").rename(chunk.parent / "c000001")
    assert len(FeatureStore.open(chunk.parent)) == 20
    assert verify_store(chunk.parent) == []


def test_zarr_reads_the_same(chunk: Path) -> None:
    record = read_record(chunk)
    root = zarr.open_group(str(chunk.parent), mode="r")
    sealed = dict(root.attrs)["labelwise_feature_store"]
    assert sealed["content"] == IDENTITY.to_record()
    features, packed = (root[f"c000000/{name}"] for name in ("features", "columns"))
    assert np.array_equal(features[:], read_rows(chunk, record))
    assert features.attrs["storage_dtype"] == "float32"
    records = packed[:].view(column_dtype(2))[:, 0]
    assert np.array_equal(records["key"], key_of(np.arange(10)))
    start = 0
    for name, dtype, n_entries, n_bytes in packed.attrs["fields"]:
        column = packed[:, start : start + n_bytes].copy().view(dtype)
        assert np.array_equal(column.reshape(10, n_entries), records[name].reshape(10, n_entries))
        start += n_bytes


@pytest.fixture(scope="module")
def shared_chunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("flip") / "s", chunk_rows=10).path / "c000000"


@given(name=st.sampled_from(FILES), at=st.integers(0, 100_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_harmless(
    shared_chunk: Path, name: str, at: int, bit: int
) -> None:
    before = read_all(shared_chunk)
    path = shared_chunk / name
    content = path.read_bytes()
    changed = bytearray(content)
    changed[at % len(content)] ^= 1 << bit
    path.write_bytes(changed)
    try:
        after = read_all(shared_chunk)
    except DamagedChunkError:
        return
    finally:
        path.write_bytes(content)
    # White space, and attributes that are for other readers, may change.
    assert name.endswith("zarr.json")
    assert after == before


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("0/0")])
def test_every_bit_of_the_data_counts(chunk: Path, name: str) -> None:
    path = chunk / name
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        with pytest.raises(DamagedChunkError, match=f"{name} does not agree with its checksum"):
            read_all(chunk)
    path.write_bytes(content)
    read_all(chunk)


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [remove, empty, cut, replace_by_folder])
@pytest.mark.parametrize("name", FILES)
def test_harm_to_any_file_is_noticed(chunk: Path, name: str, harm: Callable[[Path], None]) -> None:
    harm(chunk / name)
    with pytest.raises(DamagedChunkError, match="chunk c000000 of the feature store") as caught:
        read_all(chunk)
    assert caught.value.number == 0


@pytest.mark.parametrize("name", ["features/c/0/0", "columns/c/0/0"])
def test_a_file_that_is_too_long_is_noticed(chunk: Path, name: str) -> None:
    extend(chunk / name)
    with pytest.raises(DamagedChunkError, match="bytes and should have"):
        read_all(chunk)


def test_missing_rows_are_noticed_before_they_are_read(chunk: Path) -> None:
    """Zarr would give zeros here."""
    (chunk / "features/c/0/0").unlink()
    assert not zarr.open_array(str(chunk / "features"), mode="r")[:].any()
    with pytest.raises(DamagedChunkError, match="No such file"):
        read_record(chunk)


@pytest.mark.parametrize(
    ("name", "former", "now"),
    [
        ("features", '"float32"', '"int32"'),
        ("features", '"crc32c"', '"zstd"'),
        ("features", '"little"', '"big"'),
        ("columns", '"uint8"', '"int8"'),
    ],
)
def test_an_array_of_another_form_is_noticed(chunk: Path, name: str, former: str, now: str) -> None:
    path = chunk / name / "zarr.json"
    text = path.read_text()
    assert former in text
    path.write_text(text.replace(former, now))
    with pytest.raises(DamagedChunkError, match=f"of {name} is .* and should be"):
        read_all(chunk)


def test_an_array_of_another_shape_is_noticed(chunk: Path, tmp_path: Path) -> None:
    shorter = make_store(tmp_path / "other", 8, 8).path / "c000000"
    shutil.rmtree(chunk / "features")
    shutil.copytree(shorter / "features", chunk / "features")
    with pytest.raises(DamagedChunkError, match=r"shape of features is \[8, 8\]"):
        read_all(chunk)


def test_a_chunk_or_a_store_that_is_gone(chunk: Path) -> None:
    record = read_record(chunk)
    shutil.rmtree(chunk)
    with pytest.raises(DamagedChunkError, match="No such file"):
        read_rows(chunk, record)
    shutil.rmtree(chunk.parent)
    with pytest.raises(ReadError, match="cannot read the feature store") as caught:
        read_rows(chunk, record)
    assert not isinstance(caught.value, DamagedChunkError)


def test_the_error_passes_between_processes(chunk: Path) -> None:
    error = DamagedChunkError(chunk, "something")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, DamagedChunkError)
    assert (copy.folder, copy.number, copy.reason) == (chunk, 0, "something")
    assert str(copy) == str(error)
