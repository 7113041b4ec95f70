"""What is in a model's file, without running what is in it."""

from __future__ import annotations

import pickletools
import zipfile
import zlib
from pathlib import Path

from labelwise.errors import PotentialError

_ARCHIVE, _PICKLE = b"PK", b"\x80"
_CONTENT = "/data.pkl"
#: Bytes of an archive's pickle, which names tensors and does not hold them: hundreds of kB.
_MOST_BYTES = 50_000_000
#: What zipfile raises for a damaged archive: ``NotImplementedError`` where the bytes of a version
#: number are no version, ``RuntimeError`` where those of a flag say that it is encrypted.
DAMAGE = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError),
    *(ValueError, OSError, EOFError, zlib.error),
)


def check_container(path: Path) -> None:
    """Refuse what neither torch nor pickle has written, by its content.

    Raises:
        PotentialError: A folder, a file that cannot be read, is damaged, or is of another kind.
    """
    if path.is_dir():
        raise PotentialError(f"{path} is a folder; give a model file")
    start = _read_start(path)
    if start[:2] == _ARCHIVE:
        if not any(name.endswith(_CONTENT) for name in list_members(path)):
            raise PotentialError(
                f"{path} is not a model file: it is a zip archive that torch did not write; give "
                "the .model file that mace-torch wrote, or a checkpoint of Labelwise"
            )
    elif start[:1] != _PICKLE:
        raise PotentialError(
            f"{path} is not a model file: it is neither a torch archive nor a pickle; it may be "
            "an unfinished download"
        )


def list_members(path: Path) -> list[str]:
    """Return the names of the files in a torch archive; none of a file that is no archive.

    Raises:
        PotentialError: The file cannot be read, or the archive is damaged.
    """
    if _read_start(path)[:2] != _ARCHIVE:
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except DAMAGE as error:
        raise PotentialError(f"{path} is damaged or truncated; copy it again") from error


def read_words(path: Path) -> frozenset[str]:
    """List the strings in the pickle of a torch archive: keys, and names of classes.

    Families recognise their files by them. A file that is damaged or of another kind has none:
    it is recognised by nobody, and the family that is asked last says what is wrong with it.

    Args:
        path: Any file.

    Returns:
        Keys of dictionaries, and classes as ``module name``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(_CONTENT))
            if archive.getinfo(name).file_size > _MOST_BYTES:
                return frozenset()
            operations = list(pickletools.genops(archive.read(name)))
    except DAMAGE:
        return frozenset()
    return frozenset(argument for _, argument, _ in operations if isinstance(argument, str))


def _read_start(path: Path) -> bytes:
    """Return the first bytes of a file."""
    try:
        with path.open("rb") as stream:
            return stream.read(4)
    except OSError as error:
        raise PotentialError(f"{path} cannot be read: {error.strerror}") from error
