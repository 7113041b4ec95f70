"""Which files and which of their frames are meant.

A *spec* is a path, a glob pattern, or either with ``@slice`` appended, as ASE writes it:
``pool.extxyz``, ``runs/*/out.traj``, ``pool.extxyz@:1000``, ``data.db@-50:``.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labelwise.errors import ArgumentError, ReadError
from labelwise.structures.compression import strip_compression

#: Databases of ASE; one may be a folder.
DATABASE_SUFFIXES = (".db", ".json", ".aselmdb")
_SLICE = re.compile(r"^-?\d*(:-?\d*){0,2}$")

Spec = str | os.PathLike[str]


@dataclass(frozen=True)
class FileSlice:
    """One file and the frames wanted from it."""

    path: Path
    frames: slice
    is_single: bool = False


def expand_specs(specs: Spec | Iterable[Spec]) -> list[FileSlice]:
    """Resolve paths, globs and ``@slice`` endings into files and slices.

    Args:
        specs: One spec or several. Files of a glob come in alphabetical order.

    Returns:
        One entry for each file, in the order given. A spec ending in a single number
        (``file@3``, ``file@-1``) takes that one frame.

    Raises:
        ArgumentError: No spec, or a slice that cannot be read.
        ReadError: A path or a pattern matches no file, or a directory.
    """
    several = [specs] if isinstance(specs, str | os.PathLike) else list(specs)
    if not several:
        raise ArgumentError("no structure file was given")
    return [part for spec in several for part in _expand_spec(os.fspath(spec))]


def _expand_spec(spec: str) -> list[FileSlice]:
    # A file whose name contains '@' is meant literally.
    if Path(spec).exists():
        return [FileSlice(_checked_file(Path(spec)), slice(None))]
    pattern, _, ending = spec.rpartition("@")
    if pattern and not _SLICE.match(ending):
        raise ArgumentError(
            f"{spec}: no such file, and {ending!r} is not a slice; "
            "write file@start:stop:step or file@frame"
        )
    frames = _parse_slice(ending) if pattern else slice(None)
    is_single = bool(pattern) and ":" not in ending
    pattern = pattern or spec
    if Path(pattern).exists():
        return [FileSlice(_checked_file(Path(pattern)), frames, is_single)]
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    matches = sorted(match for match in found if Path(match).is_file())
    if not matches:
        kind = "no file matches" if glob.has_magic(pattern) else "no such file:"
        raise ReadError(f"{kind} {pattern}")
    return [FileSlice(Path(match), frames, is_single) for match in matches]


def _checked_file(path: Path) -> Path:
    if path.is_dir() and strip_compression(path).suffix not in DATABASE_SUFFIXES:
        raise ReadError(f"{path} is a directory; give its files, for instance '{path}/*.extxyz'")
    return path


def _parse_slice(text: str) -> slice:
    try:
        numbers = [int(part) if part else None for part in text.split(":")]
        if len(numbers) == 1:
            first = numbers[0]
            if first is None:
                raise ArgumentError("an empty slice after '@'; write file@start:stop:step")
            return slice(first, first + 1 or None)
        frames = slice(*numbers)
        frames.indices(0)
    except ArgumentError:
        raise
    except ValueError as error:
        raise ArgumentError(f"'@{text}' is not a slice: {error}") from error
    return frames
