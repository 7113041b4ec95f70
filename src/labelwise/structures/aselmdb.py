"""Raw access to ``.aselmdb`` files: LMDB whose values are zlib-compressed JSON of ASE rows.

Keys are ``"1"`` to ``"N"``, ``nextid`` (N + 1), ``deleted_ids`` and ``metadata``; arrays are
``{"__ndarray__": [shape, dtype, flat values]}``. That is what ase-db-backends writes; neither it
nor its lock files are needed here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from labelwise.errors import DataSetError, LabelwiseError, WriteError
from labelwise.runtime.files import whole_file
from labelwise.structures.lmdb_file import LmdbFile, import_lmdb

_ARRAY = "__ndarray__"
_ARRAY_KINDS = "biufU"
_NESTED = (dict, list)
_FIRST_MAP_SIZE = 2**20
_ROWS_A_TRANSACTION = 1000


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
        self.path = path
        self._file = LmdbFile(path)
        #: Ascending ids of the rows that were not deleted.
        self.ids: Sequence[int] = self._list_ids()

    def close(self) -> None:
        """Let go of the file; harmless when repeated."""
        self._file.close()

    def iter_rows(self, ids: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield ids and rows as JSON gives them; see ``restore`` for their arrays.

        Raises:
            DataSetError: A row is missing, or its value is not the zlib-compressed JSON of an
                object; names file and row.
        """
        for number in ids:
            where = f"{self.path}: row {number}"
            row = decode_value(self._get(str(number).encode(), where), where)
            if not isinstance(row, dict):
                raise DataSetError(f"{where}: a {type(row).__name__}; expected a JSON object")
            yield number, row

    def _list_ids(self) -> Sequence[int]:
        where = f"{self.path}: nextid"
        next_id = decode_value(self._get(b"nextid", where), where)
        if type(next_id) is not int or next_id < 1:
            raise DataSetError(f"{where} is {next_id!r:.40}; expected the number of rows + 1")
        where = f"{self.path}: deleted_ids"
        raw = self._file.get(b"deleted_ids", where)
        deleted = [] if raw is None else decode_value(raw, where)
        if not isinstance(deleted, list) or not all(type(each) is int for each in deleted):
            raise DataSetError(f"{where} are {deleted!r:.40}; expected a list of row numbers")
        if not deleted:
            return range(1, next_id)
        gone = set(deleted)
        return [number for number in range(1, next_id) if number not in gone]

    def _get(self, key: bytes, where: str) -> bytes:
        raw = self._file.get(key, where)
        if raw is None:
            raise DataSetError(f"{where} is not in the file: it is damaged, or not an ASE database")
        return raw


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
    lmdb = import_lmdb("writing .aselmdb files")
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
