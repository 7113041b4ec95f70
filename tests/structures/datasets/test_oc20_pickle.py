"""Pickles of OC20: what is in them comes out, and nothing of it runs."""

from __future__ import annotations

import io
import os
import pickle
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelwise.errors import DataSetError
from labelwise.structures.datasets.oc20_lmdb import Oc20Lmdb
from labelwise.structures.datasets.oc20_pickle import decode, load_fields, load_plain
from tests.structures.datasets.oc20_files import make_fields, make_frames, pickle_data, write_lmdb


def read(path: Path) -> None:
    with Oc20Lmdb(path) as data:
        list(data.iter_structures())


class Evil:
    def __init__(self, function: object, *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def evil_storage(path: Path) -> Evil:
    """Return what asks torch for bytes whose own pickle runs a program."""
    nested = pickle.dumps(Evil(os.system, f"touch {path}"), protocol=2)
    return Evil(torch.storage._load_from_bytes, nested)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda path: Evil(os.system, f"touch {path}"), f"{os.system.__module__}.system"),
        (lambda path: Evil(eval, f"open({str(path)!r}, 'w')"), "builtins.eval"),
        (lambda path: Evil(getattr, OrderedDict, "fromkeys"), "builtins.getattr"),
        (lambda path: Evil(zlib.decompress, b""), "zlib.decompress"),
        (lambda path: Evil(torch.load, io.BytesIO()), "torch"),
        (lambda path: path, "pathlib"),
    ],
)
def test_pickles_that_ask_for_more_are_refused(make: Any, name: str, tmp_path: Path) -> None:
    target = tmp_path / "touched"
    fields = make_fields(make_frames(1)[0]) | {"extra": make(target)}
    path = write_lmdb(tmp_path / "data.lmdb", [pickle_data(fields)])
    with pytest.raises(DataSetError, match=rf"data\.lmdb@0: the pickle asks for .*{name}"):
        read(path)
    assert not target.exists()


def test_an_evil_count_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    path = write_lmdb(tmp_path / "data.lmdb", [b""], count=Evil(os.system, f"touch {target}"))
    with pytest.raises(DataSetError, match="key 'length': the pickle asks for"):
        read(path)
    assert not target.exists()


def test_an_evil_pickle_within_a_tensor_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    tensor = Evil(
        torch._utils._rebuild_tensor_v2, evil_storage(target), 0, (6, 3), (3, 1), False, None
    )
    path = write_lmdb(
        tmp_path / "data.lmdb", [pickle_data(make_fields(make_frames(1)[0]) | {"pos": tensor})]
    )
    with pytest.raises(DataSetError, match="pos: a damaged tensor"):
        read(path)
    assert not target.exists()


def test_a_pickle_cannot_change_the_classes_it_is_read_with() -> None:
    """An opcode that gives an object a state must not reach a class or function of ours."""
    for module, name in (
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch.storage", "_load_from_bytes"),
        ("torch_geometric.data.data", "Data"),
        ("numpy", "dtype"),
        ("collections", "OrderedDict"),
    ):
        # GLOBAL, MARK NONE DICT(name: 7) TUPLE, BUILD, STOP
        state = b"N}(X\x08\x00\x00\x00__init__K\x07u\x86b."
        with pytest.raises(DataSetError, match="damaged pickle"):
            load_plain(b"\x80\x04c" + f"{module}\n{name}\n".encode() + state, "here")
    tensor = load_fields(pickle_data({"a": torch.arange(3)}), "here")["a"]
    assert decode(tensor, "here").tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", [b"", b"\x80", b"garbage", pickle.dumps(3), pickle.dumps({})])
def test_values_that_are_no_data_object(value: bytes) -> None:
    with pytest.raises(DataSetError, match="here: "):
        load_fields(value, "here")


def test_any_byte_may_be_wrong() -> None:
    """A damaged value is an error or other numbers, never something else that is raised.

    Not tried is the opcode ``r``, for which the interpreter makes room for up to 2^32 objects.
    """
    value = pickle_data(make_fields(make_frames(1)[0]))
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(400):
        damaged = bytearray(value)
        damaged[rng.integers(len(value))] = rng.integers(ord("r"))
        try:
            fields = load_fields(bytes(damaged), "here")
            for name, field in fields.items():
                decode(field, f"here: {name}")
        except DataSetError:
            n_refused += 1
    assert n_refused > 20


TENSORS = [
    torch.arange(6, dtype=torch.float32).reshape(2, 3) / 3,
    torch.arange(6, dtype=torch.float64).reshape(1, 2, 3) / 7,
    torch.arange(300, dtype=torch.int64),
    torch.arange(70_000, dtype=torch.int32),
    torch.tensor([-3, 4], dtype=torch.int16),
    torch.tensor([-3, 4], dtype=torch.int8),
    torch.tensor([200, 4], dtype=torch.uint8),
    torch.tensor([True, False]),
    torch.tensor([0.1, 0.2], dtype=torch.float16),
    torch.tensor(2.5),
    torch.zeros(0, 3),
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_are_decoded_as_torch_does(protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [pickle.dumps({"a": tensor}, protocol=protocol) for tensor in TENSORS]
    if protocol > 2:  # bytes of protocol 2 are made by a function, which is not on the list
        monkeypatch.setattr(torch, "load", None)  # the fast road alone
        for value, tensor in zip(values, TENSORS, strict=True):
            found = decode(load_plain(value, "here")["a"], "here")  # type: ignore[index]
            assert found.dtype == tensor.numpy().dtype
            assert found.shape == tuple(tensor.shape)
            assert np.array_equal(found, tensor.numpy())
    else:
        with pytest.raises(DataSetError, match=r"_codecs\.encode"):
            load_plain(values[0], "here")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3).T,
        torch.arange(12.0)[::2],
        torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
        torch.arange(12, dtype=torch.int32).reshape(4, 3)[:, 1:],
    ],
)
def test_other_strides_and_types_go_to_torch(tensor: torch.Tensor) -> None:
    found = decode(load_plain(pickle.dumps(tensor, protocol=5), "here"), "here")
    assert np.array_equal(found, tensor.double().numpy())


def test_a_part_of_a_storage_is_decoded() -> None:
    found = decode(load_plain(pickle.dumps(torch.arange(9.0)[2:5], protocol=5), "here"), "here")
    assert found.tolist() == [2, 3, 4]


def test_storages_in_torch_s_newer_format_go_to_torch() -> None:
    storage = torch.arange(6.0).untyped_storage()
    stream = io.BytesIO()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    torch.save(typed, stream)
    blob = Evil(torch.storage._load_from_bytes, stream.getvalue())
    tensor = Evil(torch._utils._rebuild_tensor_v2, blob, 0, (2, 3), (3, 1), False, OrderedDict())
    found = decode(load_plain(pickle.dumps(tensor, protocol=5), "here"), "here")
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


def legacy(tensor: torch.Tensor) -> bytes:
    """Return a tensor's storage as it is within its pickle."""
    found = load_plain(pickle.dumps(tensor, protocol=5), "here")
    raw: bytes = found.blob.raw  # type: ignore[attr-defined]
    return raw


GOOD = legacy(torch.arange(6.0))


@pytest.mark.parametrize(
    ("blob", "size", "stride", "offset"),
    [
        (GOOD[:-1], (6,), (1,), 0),
        (GOOD + b"\0", (6,), (1,), 0),
        (GOOD[:-32] + b"\x07" + GOOD[-31:], (6,), (1,), 0),
        (GOOD.replace(b"FloatStorage", b"OtherStorage"), (6,), (1,), 0),
        (GOOD.replace(b"\x6c\xfc\x9c", b"\x6c\xfc\x9d"), (6,), (1,), 0),
        (GOOD, (7,), (1,), 0),
        (GOOD, (6,), (1,), 1),
        (GOOD, (6,), (1,), -1),
        (GOOD, (-6,), (1,), 0),
        (GOOD, (2, 3), (1,), 0),
        (GOOD, (10**12,), (0,), 0),
        (GOOD, (3,), (5,), 0),
        (GOOD, (2,), (-1,), 1),
        (GOOD, ("6",), (1,), 0),
        (GOOD, None, None, 0),
        ("text", (6,), (1,), 0),
        (b"", (6,), (1,), 0),
    ],
)
def test_tensors_whose_bytes_do_not_fit(blob: Any, size: Any, stride: Any, offset: int) -> None:
    storage = Evil(torch.storage._load_from_bytes, blob)
    tensor = Evil(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, None)
    pickled = load_plain(pickle.dumps(tensor, protocol=5), "here")
    with pytest.raises(DataSetError, match="here: a damaged tensor"):
        decode(pickled, "here")


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_numpy_arrays_and_numbers(protocol: int) -> None:
    for array in (
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">i4"),
        np.array([True, False]),
        np.float64(0.1),
        np.int16(-3),
    ):
        found = decode(load_plain(pickle.dumps(array, protocol=protocol), "here"), "here")
        assert np.array_equal(found, array)


@pytest.mark.parametrize("array", [np.array([None, 1]), np.array(["a"]), np.array([1 + 1j])])
def test_numpy_arrays_of_other_things(array: np.ndarray) -> None:
    found = load_plain(pickle.dumps(array, protocol=4), "here")
    with pytest.raises(DataSetError, match="damaged tensor"):
        decode(found, "here")
