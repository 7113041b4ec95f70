"""Raw access to ``.aselmdb`` files: LMDB whose values are zlib-compressed JSON of ASE rows.

Keys are ``"1"`` to ``"N"``, ``nextid`` (N + 1), ``deleted_ids`` and ``metadata``; arrays are
``{"__ndarray__": [shape, dtype, flat values]}``. That is what ase-db-backends writes; neither it
nor its lock files are needed here.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import orjson

from labelwise.errors import (
    DataSetError,
    LabelwiseError,
    MissingDependencyError,
    WriteError,
)
from labelwise.runtime.files import whole_file

#: The head of a page (16 bytes), then magic, version, address and map size; page size, flags,
#: depth and five counts of the free list; the same of the tree; last page; transaction.
_META = struct.Struct("<16x II QQ IHH5Q IHH5Q QQ")
_MAGIC = 0xBEEFC0DE
_MAGIC_PLACE = slice(16, 20)
_VERSION = 1
_PAGE_SIZES = tuple(2**power for power in range(9, 17))
_ARRAY = "__ndarray__"
_ARRAY_KINDS = "biufU"
_NESTED = (dict, list)
_FIRST_MAP_SIZE = 2**20
_ROWS_A_TRANSACTION = 1000
#: A read maps up to 64 kB around a value, which stay in memory until the file is opened anew.
READS_A_MAP = 1000

# LMDB refuses to open a file twice in a process, so readers of the same file share it.
_environments: WeakValueDictionary[tuple[int, str, int], Any] = WeakValueDictionary()
_environments_lock = threading.Lock()


def _find_decompressor() -> tuple[Callable[[bytes], bytes], type[Exception]]:
    """Return a function and what it raises; ISA-L takes a third of the time, if it is there."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.decompress, zlib.error
    fast: Any = isal_zlib
    return fast.decompress, fast.error


_decompress, _DecompressionError = _find_decompressor()


class AselmdbRows:
    """The rows of one open file; nothing is locked, and nothing is written beside it.

    Args:
        path: The file.

    Raises:
        DataSetError: Not an LMDB file, truncated, or without ``nextid``.
        MissingDependencyError: lmdb is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._environment = _open_environment(path)
        self._n_bytes = path.stat().st_size
        self._n_read = 0
        #: Ascending ids of the rows that were not deleted.
        self.ids: Sequence[int] = self._list_ids()

    def close(self) -> None:
        """Let go of the file; harmless when repeated."""
        self._environment = None

    def iter_rows(self, ids: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield ids and rows as JSON gives them; see ``restore`` for their arrays.

        Raises:
            DataSetError: A row is missing, or its value is not the zlib-compressed JSON of an
                object; names file and row.
        """
        for number in ids:
            where = f"{self._path}: row {number}"
            row = decode_value(self._get(str(number).encode(), where), where)
            if not isinstance(row, dict):
                raise DataSetError(f"{where}: a {type(row).__name__}; expected a JSON object")
            yield number, row

    def _list_ids(self) -> Sequence[int]:
        where = f"{self._path}: nextid"
        next_id = decode_value(self._get(b"nextid", where), where)
        if type(next_id) is not int or next_id < 1:
            raise DataSetError(f"{where} is {next_id!r:.40}; expected the number of rows + 1")
        where = f"{self._path}: deleted_ids"
        raw = self._get(b"deleted_ids", where, needed=False)
        deleted = [] if raw is None else decode_value(raw, where)
        if not isinstance(deleted, list) or not all(type(each) is int for each in deleted):
            raise DataSetError(f"{where} are {deleted!r:.40}; expected a list of row numbers")
        if not deleted:
            return range(1, next_id)
        gone = set(deleted)
        return [number for number in range(1, next_id) if number not in gone]

    def _get(self, key: bytes, where: str, *, needed: bool = True) -> Any:
        import lmdb

        if self._environment is None:
            raise DataSetError(f"{self._path} was closed; open it again")
        self._n_read += 1
        if self._n_read > READS_A_MAP:
            self._n_read, self._environment = 0, None
            self._environment = _open_environment(self._path)
        try:
            with self._environment.begin(buffers=True) as transaction:
                view = transaction.get(key)
                if view is not None and view.nbytes > self._n_bytes:  # LMDB believes any size
                    raise DataSetError(
                        f"{where}: {view.nbytes} bytes in a file of {self._n_bytes}: it is damaged"
                    )
                raw = None if view is None else bytes(view)
        except lmdb.Error as error:
            raise DataSetError(f"{where}: cannot be read ({error})") from error
        if raw is None and needed:
            raise DataSetError(f"{where} is not in the file: it is damaged, or not an ASE database")
        return raw


def is_lmdb(path: Path) -> bool:
    """Return whether a file begins as LMDB files do."""
    with path.open("rb") as stream:
        head = stream.read(_MAGIC_PLACE.stop)
    return head[_MAGIC_PLACE] == _MAGIC.to_bytes(4, "little")


def check_pages(path: Path) -> None:
    """Refuse a file that LMDB would crash on: it maps files and trusts what they say.

    Raises:
        DataSetError: Not an LMDB file, or shorter than the pages that it announces.
    """
    try:
        n_bytes = path.stat().st_size
        if not is_lmdb(path):
            raise DataSetError(f"{path} is not an LMDB file")
        page_size, needed = _measure_pages(path)
    except struct.error as error:
        raise DataSetError(f"{path} is truncated: it ends within its first pages") from error
    except LabelwiseError:
        raise
    except OSError as error:
        raise DataSetError(f"cannot read {path}: {error.strerror or error}") from error
    if n_bytes < needed:
        raise DataSetError(
            f"{path} is truncated: {n_bytes} bytes, where its pages of {page_size} bytes need "
            f"{needed}; copy it again"
        )


def _measure_pages(path: Path) -> tuple[int, int]:
    """Return the size of a page and the bytes that the newest transaction needs."""
    with path.open("rb") as stream:
        first = _META.unpack(stream.read(_META.size))
        version, page_size = first[1], first[4]
        if version != _VERSION or page_size not in _PAGE_SIZES:
            raise DataSetError(
                f"{path}: LMDB version {version} with pages of {page_size} bytes; "
                f"allowed are version {_VERSION} and 512-65536 bytes"
            )
        stream.seek(page_size)
        second = _META.unpack(stream.read(_META.size))
    if second[0] != _MAGIC:
        raise DataSetError(f"{path} is damaged: its second page is not one of LMDB")
    last_page = max((meta[-1], meta[-2]) for meta in (first, second))[1]
    return page_size, (last_page + 1) * page_size


def _open_environment(path: Path) -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise MissingDependencyError("lmdb", "data", "reading .aselmdb files") from error
    check_pages(path)
    key = (os.getpid(), str(path.resolve()), path.stat().st_ino)
    with _environments_lock:
        environment = _environments.get(key)
        if environment is None:
            try:
                environment = lmdb.open(
                    str(path), subdir=False, readonly=True, lock=False, create=False, meminit=False
                )
            except lmdb.Error as error:
                raise DataSetError(f"{path} cannot be opened ({error})") from error
            _environments[key] = environment
    return environment


def decode_value(raw: bytes, where: str) -> Any:
    """Return what a value of the file says.

    Args:
        raw: zlib-compressed JSON; NaN and Infinity are taken as Python's json writes them.
        where: File and key, for messages.

    Raises:
        DataSetError: It is not zlib, or not JSON.
    """
    try:
        text = _decompress(raw)
    except _DecompressionError as error:
        raise DataSetError(f"{where}: not compressed with zlib ({error})") from error
    with suppress(ValueError, RecursionError):  # orjson refuses NaN and Infinity
        return orjson.loads(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataSetError(f"{where}: not JSON ({error})") from error


def restore(value: Any, where: str) -> Any:
    """Return a decoded value with its arrays as NumPy arrays, at any depth.

    Args:
        value: As JSON gives it.
        where: File, row and key, for messages.

    Raises:
        DataSetError: An array whose shape, type and values do not go together; or nesting deeper
            than Python follows.
    """
    if type(value) not in _NESTED:
        return value
    try:
        return _restore(value, where)
    except RecursionError as error:
        raise DataSetError(f"{where}: nested too deeply") from error


def _restore(value: Any, where: str) -> Any:
    if type(value) is dict:
        if _ARRAY in value:
            return _restore_array(value[_ARRAY], where)
        return {
            key: _restore(each, where) if type(each) in _NESTED else each
            for key, each in value.items()
        }
    if type(value) is list and any(type(each) in _NESTED for each in value):
        return [_restore(each, where) for each in value]
    return value


def _restore_array(parts: Any, where: str) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        shape, kind, values = parts
        dtype = np.dtype(kind)
        if dtype.kind not in _ARRAY_KINDS:
            raise DataSetError(f"{where}: an array of {kind}; allowed are numbers and text")
        array = np.array(values, dtype=dtype)
        return array if array.shape == tuple(shape) else array.reshape(shape)
    except LabelwiseError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise DataSetError(f"{where}: not an array of ASE ({error})") from error


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows to a file in one step and return how many.

    The file is as large as its rows need.

    Args:
        path: The file; one that is there is replaced when all rows are written.
        rows: Rows of JSON values and NumPy arrays, ids from 1 in their order.

    Raises:
        WriteError: The file cannot be written.
        MissingDependencyError: lmdb is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise MissingDependencyError("lmdb", "data", "writing .aselmdb files") from error
    try:
        with whole_file(path) as temporary:
            environment = lmdb.open(
                str(temporary), subdir=False, map_size=_FIRST_MAP_SIZE, lock=False, sync=False
            )
            try:
                return _put_rows(environment, rows)
            finally:
                environment.close()
    except lmdb.Error as error:
        raise WriteError(f"cannot write {path}: {error}") from error


def _put_rows(environment: Any, rows: Iterable[dict[str, Any]]) -> int:
    n_rows = 0
    items: list[tuple[bytes, bytes]] = []
    for n_rows, row in enumerate(rows, start=1):
        items.append((str(n_rows).encode(), _encode_value(row)))
        if len(items) == _ROWS_A_TRANSACTION:
            _put_all(environment, items)
            items = []
    reserved = {"nextid": n_rows + 1, "deleted_ids": [], "metadata": {}}
    items += [(key.encode(), _encode_value(value)) for key, value in reserved.items()]
    _put_all(environment, items)
    return n_rows


def _put_all(environment: Any, items: Sequence[tuple[bytes, bytes]]) -> None:
    """Put items in one transaction, with a larger map as often as it is full."""
    import lmdb

    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in items:
                    transaction.put(key, value)
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
        else:
            return


def _encode_value(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, default=_as_json).encode())


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {_ARRAY: [value.shape, str(value.dtype), value.ravel().tolist()]}
    if isinstance(value, np.generic):
        return value.item()
    raise WriteError(f"a {type(value).__name__} cannot be written to an ASE database")
