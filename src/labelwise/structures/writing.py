"""Writing results so that a reader never sees half a file."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_xyz

from labelwise.errors import WriteError
from labelwise.structures.leftovers import lock_temporary, remove_leftovers


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in one step: it is there whole or not at all.

    Args:
        path: Where to write; missing folders are made.
        text: The content, written as UTF-8.

    Raises:
        WriteError: The folder cannot be written to, the disk is full, or the path is a
            directory.
    """
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a binary file in one step: temporary file, flush to disk, rename.

    What writers of the same file that were killed left beside it is removed.

    Args:
        path: Where to write; missing folders are made.
        content: The bytes.

    Raises:
        WriteError: The folder cannot be written to, the disk is full, or the path is a
            directory.
    """
    target = Path(path)
    temporary: str | None = None
    try:
        if target.is_dir():
            raise WriteError(f"cannot write {target}: it is a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            lock_temporary(handle)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            Path(temporary).chmod(0o666 & ~_current_umask())
            Path(temporary).replace(target)
    except OSError as error:
        _remove_quietly(temporary)
        if isinstance(error, WriteError):
            raise
        raise WriteError(f"cannot write {target}: {error.strerror or error}") from error
    except BaseException:
        _remove_quietly(temporary)
        raise


def write_structures(path: str | os.PathLike[str], structures: Iterable[Atoms]) -> None:
    """Write structures as extended XYZ, in one step.

    Info keys, arrays, cell, periodic directions, fixed atoms and stored results are kept;
    forces are written as stored, whatever the constraints. ASE prints real arrays with
    eight decimals.

    Args:
        path: Where to write; the suffix is not looked at.
        structures: What to write, in order; not modified.

    Raises:
        WriteError: An info key or array cannot be expressed in extended XYZ (names the
            structure), or the file cannot be written.
    """
    text = io.StringIO()
    for number, atoms in enumerate(structures):
        try:
            write_xyz(text, _without_clashes(atoms))
        except Exception as error:  # ASE raises whatever it stumbles on
            reason = str(error) or type(error).__name__
            raise WriteError(
                f"structure {number} of {path} cannot be written as extended XYZ ({reason})"
            ) from error
    write_text(path, text.getvalue())


def _without_clashes(atoms: Atoms) -> Atoms:
    """Return the structure, without calculator results that an own key already holds.

    ASE refuses to write a structure whose info and calculator both name, for instance,
    an energy; the user's own key wins.
    """
    results = getattr(atoms.calc, "results", None)
    if not results or not {*atoms.info, *atoms.arrays} & {*results}:
        return atoms
    copy: Atoms = atoms.copy()
    kept = {k: v for k, v in results.items() if k not in atoms.info and k not in atoms.arrays}
    if kept:
        copy.calc = SinglePointCalculator(copy, **kept)
    return copy


def _current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove_quietly(path: str | None) -> None:
    if path is not None:
        with suppress(OSError):
            Path(path).unlink()
