"""The reaction pool that ships with the package."""

from __future__ import annotations

import lzma
from importlib.resources import files
from pathlib import Path

from labelwise.errors import WriteError
from labelwise.runtime.files import write_bytes

#: Ten labelled structures, the pool, and a validation and a balanced test set.
DEMO_FILES = ("train.extxyz", "pool.extxyz", "valid.extxyz", "test.extxyz")
_PLAIN_FILES = ("isolated_atoms.extxyz",)


def demo_file_content(name: str) -> bytes:
    """Return one of the embedded files, decompressed.

    Args:
        name: One of ``DEMO_FILES``, or ``isolated_atoms.extxyz``.
    """
    folder = files("labelwise.structures") / "demo_reactions"
    if name in _PLAIN_FILES:
        return (folder / name).read_bytes()
    return lzma.decompress((folder / f"{name}.xz").read_bytes())


def write_demo_files(folder: Path, *, replace: bool = False) -> list[Path]:
    """Write the embedded reaction pool as extended XYZ.

    Labels are GFN2-xTB: ``REF_energy`` in eV, ``REF_forces`` in eV/Å.

    Args:
        folder: Where the files go; made if missing.
        replace: Overwrite files that are there.

    Returns:
        The paths written.

    Raises:
        WriteError: A file is there already, or cannot be written.
    """
    targets = [folder / name for name in (*DEMO_FILES, *_PLAIN_FILES)]
    present = [path for path in targets if path.exists()]
    if present and not replace:
        raise WriteError(f"{present[0]} exists; choose another folder, or replace it with --force")
    for target in targets:
        write_bytes(target, demo_file_content(target.name))
    return targets
