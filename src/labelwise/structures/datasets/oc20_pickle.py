"""Fields of a pickled torch-geometric ``Data`` object, without running what the pickle asks for.

A pickle is a program. This reader looks up every class that a pickle names in a short list of
inert stand-ins and refuses all others; torch-geometric is not imported. Tensors stay undecoded
until a field is asked for: ``torch.load`` takes about 100 µs for each, reading the fixed layout
of its bytes about 3 µs.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from labelwise.errors import DataSetError

_GEOMETRIC = "torch_geometric.data."

#: A storage as ``torch.save`` writes it in its format of before 1.6, which pickled tensors
#: still hold: magic number, protocol, sizes of the machine's types (little-endian), the
#: storage's type, key, device and number of elements, the list of keys, the number again as int64.
_LEGACY = re.compile(
    rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.\x80\x02M\xe9\x03\."
    rb"\x80\x02}q\x00\(X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03"
    rb"X\r\x00\x00\x00little_endianq\x02\x88X\n\x00\x00\x00type_sizesq\x03}q\x04\("
    rb"X\x05\x00\x00\x00shortq\x05K\x02X\x03\x00\x00\x00intq\x06K\x04X\x04\x00\x00\x00longq\x07K."
    rb"uu\.\x80\x02\(X\x07\x00\x00\x00storageq\x00ctorch\n([A-Za-z0-9]{1,20}Storage)\nq\x01"
    rb"X(.\x00\x00\x00)([0-9]{1,20})q\x02X\x03\x00\x00\x00cpuq\x03(K.|M..|J....)Ntq\x04Q\."
    rb"\x80\x02\]q\x00X\2\3q\x01a\.(.{8})",
    re.DOTALL,
)
_STORAGES: dict[bytes, np.dtype[Any]] = {
    b"DoubleStorage": np.dtype("<f8"),
    b"FloatStorage": np.dtype("<f4"),
    b"HalfStorage": np.dtype("<f2"),
    b"LongStorage": np.dtype("<i8"),
    b"IntStorage": np.dtype("<i4"),
    b"ShortStorage": np.dtype("<i2"),
    b"CharStorage": np.dtype("i1"),
    b"ByteStorage": np.dtype("u1"),
    b"BoolStorage": np.dtype("?"),
}


class _Refused(pickle.UnpicklingError):
    """A class or function that is not on the list."""


class _Inert:
    """Base of all stand-ins: a pickle can neither give them a state nor change their class."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"a state for {type(self).__name__}")


class _Holder(_Inert):
    """In the place of every torch-geometric class."""

    __slots__ = ("state",)
    state: Any

    def __init__(self, *args: Any) -> None:
        """Take and drop whatever the class was made with."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Blob(_Inert):
    """In the place of ``torch.storage._load_from_bytes``: the bytes, not loaded."""

    __slots__ = ("raw",)

    def __init__(self, raw: Any) -> None:
        self.raw = raw


class _Tensor(_Inert):
    """In the place of ``torch._utils._rebuild_tensor_v2``: its arguments."""

    __slots__ = ("blob", "offset", "size", "stride")

    def __init__(self, blob: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> None:
        self.blob, self.offset, self.size, self.stride = blob, offset, size, stride


class _DType(_Inert):
    """In the place of ``numpy.dtype``."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any, *_rest: Any) -> None:
        self.name, self.order = name, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Scalar(_Inert):
    """In the place of NumPy's ``scalar``."""

    __slots__ = ("dtype", "raw")

    def __init__(self, dtype: Any, raw: Any) -> None:
        self.dtype, self.raw = dtype, raw


class _Array(_Inert):
    """In the place of ``numpy.ndarray`` and of the two functions that make arrays."""

    __slots__ = ("dtype", "order", "raw", "shape")
    raw: Any
    dtype: Any
    shape: Any
    order: Any

    def __init__(self, *args: Any) -> None:
        if len(args) == len(self.__slots__):
            self.raw, self.dtype, self.shape, self.order = args

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, is_fortran, self.raw = state
        self.order = "F" if is_fortran else "C"


_ALLOWED: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch.storage", "_load_from_bytes"): _Blob,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "scalar", _Scalar),
            ("multiarray", "_reconstruct", _Array),
            ("numeric", "_frombuffer", _Array),
        )
    },
}


class _DataUnpickler(pickle.Unpickler):
    """Finds stand-ins on the list, and nothing else."""

    def find_class(self, module: str, name: str, /) -> type:
        found = _ALLOWED.get((module, name))
        if found is not None:
            return found
        if module.startswith(_GEOMETRIC) and name.isidentifier():
            return _Holder
        raise _Refused(f"{module}.{name}")


def load_plain(pickled: bytes | memoryview, where: str) -> object:
    """Unpickle a value, with inert stand-ins for the classes that OC20's files hold.

    Args:
        pickled: The bytes.
        where: File and structure, for messages.

    Raises:
        DataSetError: The pickle names any other class or function (which is not called), or
            is damaged.
    """
    try:
        return _DataUnpickler(io.BytesIO(pickled)).load()
    except _Refused as error:
        raise DataSetError(
            f"{where}: the pickle asks for {error}, which no OC20 file holds and which could run "
            "any program; it was refused. Take the file from its publishers"
        ) from error
    except Exception as error:  # a damaged pickle can raise whatever its opcodes run into
        reason = str(error) or type(error).__name__
        raise DataSetError(f"{where}: a damaged pickle ({reason:.80})") from error


def load_fields(pickled: bytes | memoryview, where: str) -> dict[str, object]:
    """Return the fields of a pickled ``Data`` object of torch-geometric 1 or 2.

    Args:
        pickled: The bytes.
        where: File and structure, for messages.

    Returns:
        Fields that are set; tensors are not decoded, see ``decode``.

    Raises:
        DataSetError: As ``load_plain``, or another object was pickled.
    """
    fields = _get_state(load_plain(pickled, where))
    if isinstance(fields, Mapping) and isinstance(fields.get("_store"), _Holder):
        store = _get_state(fields["_store"])
        fields = store.get("_mapping") if isinstance(store, Mapping) else None
    if not isinstance(fields, Mapping):
        raise DataSetError(f"{where}: the pickle is not a torch-geometric Data object")
    return {name: value for name, value in fields.items() if value is not None}


def _get_state(value: object) -> object:
    """Return what a torch-geometric object was pickled with, without its slots."""
    state = getattr(value, "state", None) if isinstance(value, _Holder) else None
    return state[0] if isinstance(state, tuple) and state else state


def decode(value: object, where: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Return a field's numbers.

    Args:
        value: A number, tensor or NumPy array as ``load_fields`` gave it.
        where: File, structure and field, for messages.

    Returns:
        An array of the shape and type of the field, not to be written to.

    Raises:
        DataSetError: It is something else, or its bytes are not those of its shape.
    """
    try:
        if isinstance(value, _Tensor):
            return _decode_tensor(value)
        if isinstance(value, _Scalar):
            return np.frombuffer(value.raw, _make_dtype(value.dtype)).reshape(())
        if isinstance(value, _Array):
            flat = np.frombuffer(value.raw, _make_dtype(value.dtype))
            return flat.reshape(value.shape, order=value.order)
    except Exception as error:  # sizes and bytes come from the file: anything may be wrong
        reason = str(error) or type(error).__name__
        raise DataSetError(f"{where}: a damaged tensor ({reason:.80})") from error
    if isinstance(value, bool | int | float):
        return np.asarray(value)
    raise DataSetError(f"{where}: neither numbers nor a tensor ({value!r:.40})")


def _make_dtype(stand_in: Any) -> np.dtype[Any]:
    """Return the type of real numbers, integers or truth values that a pickle names."""
    if not isinstance(stand_in, _DType) or not re.fullmatch("[fiub][1248]", str(stand_in.name)):
        raise ValueError("not an array of plain numbers")
    dtype: np.dtype[Any] = np.dtype(stand_in.name).newbyteorder(stand_in.order)
    return dtype


def _decode_tensor(tensor: _Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    count = math.prod(tensor.size)
    if min(tensor.size, default=0) < 0 or tensor.offset < 0:
        raise ValueError(f"size {tensor.size}, offset {tensor.offset}")
    raw = tensor.blob.raw
    match = _LEGACY.match(raw)
    dtype = _STORAGES.get(match[1]) if match is not None else None
    if match is None or dtype is None or not _is_contiguous(tensor.size, tensor.stride):
        return _load_with_torch(tensor, count)
    n_stored = _check_count(match, dtype, raw)
    if tensor.offset + count > n_stored:
        raise ValueError(f"shape {tensor.size} of a storage of {n_stored}")
    begin = match.end() + tensor.offset * dtype.itemsize
    found: np.ndarray[Any, np.dtype[Any]] = np.frombuffer(raw, dtype, count, begin)
    return found.reshape(tensor.size)


def _is_contiguous(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Return whether numbers lie one after another; strides of one element do not matter."""
    step = 1
    for length, distance in zip(reversed(size), reversed(stride), strict=True):
        if length != 1 and distance != step:
            return False
        step *= length
    return True


def _check_count(match: re.Match[bytes], dtype: np.dtype[Any], raw: bytes) -> int:
    """Return how many elements a storage has, where all that is said of it agrees."""
    announced, (stored,) = int.from_bytes(match[4][1:], "little"), struct.unpack("<q", match[5])
    if int.from_bytes(match[2], "little") != len(match[3]):
        raise ValueError("the storage's key has another length")
    if announced != stored or len(raw) != match.end() + stored * dtype.itemsize:
        raise ValueError(
            f"{announced} and {stored} elements announced, {len(raw) - match.end()} bytes there"
        )
    return announced


def _load_with_torch(tensor: _Tensor, count: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Decode a tensor of another layout; torch's own list of classes guards this road."""
    import torch
    from torch._utils import _rebuild_tensor_v2

    storage = torch.load(io.BytesIO(tensor.blob.raw), map_location="cpu", weights_only=True)
    empty: torch.Tensor = _rebuild_tensor_v2(storage, 0, (0,), (1,), False, {})  # type: ignore[no-untyped-call]
    n_stored = empty.untyped_storage().nbytes() // empty.element_size()
    if count > n_stored:
        raise ValueError(f"shape {tensor.size} of a storage of {n_stored}")
    # Unlike the function above, this does not enlarge a storage that is too small.
    found = empty.as_strided(tensor.size, tensor.stride, tensor.offset)
    widened = found.double() if found.is_floating_point() else found.long()
    return np.asarray(widened.numpy())
