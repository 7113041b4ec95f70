"""Files that survive a power cut: whole files that are there or not, and logs that grow.

Why JSON lines for what grows, and not SQLite: a campaign lives for weeks on the shared
file systems of clusters, whose byte-range locks SQLite depends on and which often lack
them; a line is durable after one write and one fsync, without a rollback journal beside
it; any editor, ``grep`` or ``jq`` reads it. A campaign writes a line for each
label and reads all of them once at its start, so that an index would gain nothing.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from labelwise.campaign.errors import DamagedStateError
from labelwise.errors import WriteError
from labelwise.runtime.files import sync_folder, write_bytes


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain data as indented JSON, so that it survives a power cut.

    Raises:
        WriteError: The disk is full, or the folder cannot be written to.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode() + b"\n", durable=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of ``write_json``.

    Raises:
        DamagedStateError: It cannot be read or is not JSON.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedStateError(f"cannot read {path}: {error}") from error
    return content


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays of numbers or words to an ``.npz`` file.

    Raises:
        WriteError: The disk is full, or the folder cannot be written to.
    """
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_bytes(path, content.getvalue())


def read_arrays(path: Path) -> dict[str, Any]:
    """Read a file of ``write_arrays``; nothing if there is none.

    Raises:
        DamagedStateError: It cannot be read.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            return dict(content)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedStateError(f"{path} cannot be read: {error}") from error


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record to a log and wait until it is on the disk.

    Either the whole line is there afterwards, or the log is as it was; after a power cut
    half a line may be, which ``repair_log`` takes away.

    Raises:
        WriteError: The disk is full, or the file cannot be written to.
    """
    line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    is_new = not path.exists()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            before = os.fstat(handle).st_size
            try:
                _write_all(handle, line)
                os.fsync(handle)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)
    except OSError as error:
        raise WriteError(f"cannot append to {path}: {error.strerror or error}") from error
    if is_new:
        sync_folder(path.parent)


class SpareSpace:
    """A file kept for the moment at which the disk is full.

    What is in hand then, a label that took a day, still has to be written down. So some
    space is taken beforehand and given back when it is needed. The file has no name: a process
    that is killed leaves none behind.
    """

    def __init__(self, folder: Path, n_bytes: int = 1 << 20) -> None:
        """Take the space.

        Args:
            folder: Where; the file system is what matters.
            n_bytes: How much.

        Raises:
            WriteError: There is not so much space.
        """
        self._handle: int | None = None
        try:
            self._handle, name = tempfile.mkstemp(prefix=".spare_space_", dir=folder)
            Path(name).unlink()
            # Random, because some file systems store runs of zeros in no space at all.
            _write_all(self._handle, os.urandom(n_bytes))
            os.fsync(self._handle)
        except OSError as error:
            self.release()
            raise WriteError(f"cannot write to {folder}: {error.strerror or error}") from error

    def append_line(self, path: Path, record: Mapping[str, Any]) -> None:
        """Append a record like ``append_line``, even if the disk is full.

        Raises:
            WriteError: The disk is full. The record is in the log nevertheless, unless the
                message says otherwise.
        """
        try:
            append_line(path, record)
        except WriteError as error:
            self.release()
            try:
                append_line(path, record)
            except WriteError as second:
                raise WriteError(f"{second}; the last result is lost") from second
            raise WriteError(f"{error}; what was finished is safe") from error

    def release(self) -> None:
        """Give the space back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def repair_log(path: Path) -> None:
    """Take away half a line that a crash left at the end of a log.

    Only the process that has the campaign may call this.

    Raises:
        WriteError: The file cannot be written to.
    """
    if not path.exists():
        return
    content = path.read_bytes()
    whole = _whole_part(content)
    if len(whole) == len(content):
        return
    try:
        handle = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(handle, len(whole))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise WriteError(f"cannot repair {path}: {error.strerror or error}") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a log; half a line at its end is passed over.

    Raises:
        DamagedStateError: The log cannot be read, or a line other than the last is not JSON.
    """
    if not path.exists():
        return []
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedStateError(f"cannot read {path}: {error.strerror or error}") from error
    records = []
    for number, line in enumerate(_whole_part(content).splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise DamagedStateError(f"{path}: line {number} is not JSON ({error})") from error
    return records


def _whole_part(content: bytes) -> bytes:
    """Return the lines that were written whole.

    A line counts from its newline on; file systems that lost power can also leave a tail
    of zeros, which is no line.
    """
    whole = content[: content.rfind(b"\n") + 1]
    while whole:
        last = whole[whole.rfind(b"\n", 0, len(whole) - 1) + 1 :]
        try:
            json.loads(last)
        except ValueError:
            whole = whole[: len(whole) - len(last)]
        else:
            break
    return whole


def _write_all(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
