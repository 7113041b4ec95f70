"""Opening plain and compressed files as streams that are read once, front to back."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, cast

import zstandard

from labelwise.errors import ReadError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")

#: What the standard decoders raise on damaged input.
DECODING_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError)


_CHUNK = 1 << 18
#: Compressed bytes that are decoded at once: four may stand for 128 kB.
_ZSTANDARD_PIECE = 1 << 11


class _ZstandardStream(io.RawIOBase):
    """Zstandard data as a stream that notices when the end is missing.

    The package's own reader takes a file that was cut short for a shorter file.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._compressed = b""
        self._pending = b""
        self._is_inside_frame = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while not self._pending:
            self._compressed = self._compressed or self._raw.read(_CHUNK)
            if not self._compressed:
                if self._is_inside_frame:
                    raise EOFError("compressed file ended before the end of its data")
                return 0
            piece = self._compressed[:_ZSTANDARD_PIECE]
            self._pending = self._frame.decompress(piece)
            self._is_inside_frame = not self._frame.eof
            self._compressed = (self._frame.unused_data if self._frame.eof else b"") + (
                self._compressed[_ZSTANDARD_PIECE:]
            )
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        n_given = min(len(view), len(self._pending))
        view[:n_given] = self._pending[:n_given]
        self._pending = self._pending[n_given:]
        return n_given


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
    with raw:
        stream: IO[bytes]
        if suffix == ".gz":
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
        elif suffix == ".bz2":
            stream = cast("IO[bytes]", bz2.BZ2File(raw))
        elif suffix == ".xz":
            stream = cast("IO[bytes]", lzma.LZMAFile(raw))  # noqa: SIM115 - raw is closed below
        elif suffix == ".zst":
            stream = cast("IO[bytes]", io.BufferedReader(_ZstandardStream(raw)))
        else:
            stream = raw
        yield stream


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
