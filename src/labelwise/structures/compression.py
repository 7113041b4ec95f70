"""Opening plain and compressed files as streams that are read once, front to back."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from backports import zstd

from labelwise.errors import ReadError

_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": zstd.ZstdFile,
}
COMPRESSED_SUFFIXES = tuple(_OPENERS)

#: What the standard decoders raise on damaged input.
DECODING_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error, zstd.ZstdError)


def strip_compression(path: Path) -> Path:
    """Return the path without its compression suffix: ``a.xyz.gz`` becomes ``a.xyz``."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED_SUFFIXES else path


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for one forward pass, decompressing by suffix.

    ASE seeks in compressed streams, and every backward seek decompresses from the
    start again; a single forward pass keeps reading linear in the file's size.

    Args:
        path: A plain file, or one that ends in .gz, .bz2, .xz or .zst.

    Yields:
        The decompressed bytes as a readable stream.

    Raises:
        ReadError: The file is missing, may not be read, or is a directory.
    """
    suffix = path.suffix.lower()
    try:
        raw = path.open("rb")
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror or error}") from error
    opener = _OPENERS.get(suffix)
    with raw:
        yield raw if opener is None else opener(raw)


@contextmanager
def decompressed_file(path: Path) -> Iterator[Path]:
    """Give a path that other libraries can open: the file itself, or a temporary copy.

    Args:
        path: A plain or compressed file.

    Yields:
        ``path`` when it is not compressed, else a decompressed copy that is deleted
        on exit.

    Raises:
        ReadError: The compressed data are damaged or cut short.
    """
    if strip_compression(path) == path:
        yield path
        return
    with TemporaryDirectory(prefix="labelwise-") as folder:
        target = Path(folder) / strip_compression(path).name
        try:
            with open_binary(path) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        except DECODING_ERRORS as error:
            if isinstance(error, ReadError):
                raise
            raise ReadError(f"cannot decompress {path}: {error}") from error
        yield target
