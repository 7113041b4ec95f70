"""LMDB files opened for reading: nothing is locked, written or believed unseen."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from labelwise.errors import DataSetError, LabelwiseError, MissingDependencyError

#: The head of a page (16 bytes), then magic, version, address and map size; page size, flags,
#: depth and five counts of the free list; the same of the tree; last page; transaction.
_META = struct.Struct("<16x II QQ IHH5Q IHH5Q QQ")
_MAGIC = 0xBEEFC0DE
_MAGIC_PLACE = slice(16, 20)
_VERSION = 1
_PAGE_SIZES = tuple(2**power for power in range(9, 17))
#: A read maps up to 64 kB around a value, which stay in memory until the file is opened anew.
READS_A_MAP = 1000

# LMDB refuses to open a file twice in a process, so readers of the same file share it.
_environments: WeakValueDictionary[tuple[int, str, int], Any] = WeakValueDictionary()
_environments_lock = threading.Lock()


class LmdbFile:
    """One open file.

    Args:
        path: The file.

    Raises:
        DataSetError: Not an LMDB file, or truncated.
        MissingDependencyError: lmdb is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._environment = _open_environment(path)
        self._n_bytes = path.stat().st_size
        self._n_read = 0

    def close(self) -> None:
        """Let go of the file; harmless when repeated."""
        self._environment = None

    def count_keys(self) -> int:
        """Return how many keys the file has."""
        return int(self._environment.stat()["entries"])

    def get(self, key: bytes, where: str) -> bytes | None:
        """Return the value of a key, None if there is no such key.

        Args:
            key: The key.
            where: File and key, for messages.

        Raises:
            DataSetError: The value cannot be read, or the file was closed.
        """
        import lmdb

        if self._environment is None:
            raise DataSetError(f"{self.path} was closed; open it again")
        self._n_read += 1
        if self._n_read > READS_A_MAP:
            self._n_read, self._environment = 0, None
            self._environment = _open_environment(self.path)
        try:
            with self._environment.begin(buffers=True) as transaction:
                view = transaction.get(key)
                if view is not None and view.nbytes > self._n_bytes:  # LMDB believes any size
                    raise DataSetError(
                        f"{where}: {view.nbytes} bytes in a file of {self._n_bytes}: it is damaged"
                    )
                return None if view is None else bytes(view)
        except lmdb.Error as error:
            raise DataSetError(f"{where}: cannot be read ({error})") from error


def check_pages(path: Path) -> None:
    """Refuse a file that LMDB would crash on: it maps files and trusts what they say.

    Raises:
        DataSetError: Not an LMDB file, or shorter than the pages that it announces.
    """
    try:
        n_bytes = path.stat().st_size
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
        head = stream.read(_META.size)
        if head[_MAGIC_PLACE] != _MAGIC.to_bytes(4, "little"):
            raise DataSetError(f"{path} is not an LMDB file")
        first = _META.unpack(head)
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
    lmdb = import_lmdb("reading LMDB files")
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


def import_lmdb(purpose: str) -> Any:
    """Return lmdb, which is installed with the extra ``data``.

    Raises:
        MissingDependencyError: It is not installed; names the purpose.
    """
    try:
        import lmdb
    except ImportError as error:
        raise MissingDependencyError("lmdb", "data", purpose) from error
    return lmdb
