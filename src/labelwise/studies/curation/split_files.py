"""The files of a split, and the manifest that makes them ours."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from labelwise.errors import WriteError
from labelwise.runtime.files import hash_file, write_text
from labelwise.structures import write_structures
from labelwise.studies.curation.splitting import PARTS

MANIFEST = "split.json"
FORMAT_VERSION = 1


def file_of(part: str) -> str:
    """Return the file name of a part."""
    return f"{part}.extxyz"


def write_split(
    folder: Path,
    parts: Mapping[str, Sequence[Atoms]],
    record: Mapping[str, Any],
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write the parts of a split and its manifest.

    All files are written into a hidden folder first and moved into place together, the
    manifest last. A file of an earlier split that is not part of this one is removed.
    Nothing in the manifest depends on when or how fast it was made.

    Args:
        folder: Where the files go; made if missing.
        parts: Structures by name of the part; a part without any is not written.
        record: What else the manifest tells, as plain data.
        force: Replace files that no earlier split wrote.

    Returns:
        The manifest.

    Raises:
        WriteError: A file is there that no earlier split wrote, or one cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".split-", dir=folder))
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        files = {}
        for part, structures in parts.items():
            if structures:
                write_structures(staging / file_of(part), structures)
                digest = hash_file(staging / file_of(part))
                files[file_of(part)] = {"structures": len(structures), "sha256": digest}
        manifest = {"format_version": FORMAT_VERSION, "files": files, **record}
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_text(staging / MANIFEST, text)
        if not force:
            check_free(folder)
        _move(staging, folder, files)
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        raise WriteError(f"cannot write into {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def check_free(folder: Path) -> None:
    """Raise unless all that a split would replace was written by an earlier one.

    Args:
        folder: Where the files would go.

    Raises:
        WriteError: A file is not as the manifest of the folder says, or in no manifest.
    """
    known = _read_manifest(folder)
    for part in PARTS:
        path = folder / file_of(part)
        if path.is_dir():
            raise WriteError(f"cannot write {path}: it is a directory")
        if path.exists() and hash_file(path) != known.get(path.name):
            raise WriteError(
                f"{path} exists and is not what 'labelwise split' wrote there; "
                "choose another --out, or replace it with --force"
            )
    if (folder / MANIFEST).exists() and not known:
        raise WriteError(
            f"{folder / MANIFEST} exists and is not the manifest of a split; "
            "choose another --out, or replace it with --force"
        )


def _read_manifest(folder: Path) -> dict[str, str]:
    """Return hash by file name of an earlier split; empty if there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        files = json.loads(path.read_text())["files"]
        return {str(name): str(entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # not ours, and the caller says so


def _move(staging: Path, folder: Path, files: Mapping[str, Any]) -> None:
    for part in PARTS:
        if file_of(part) in files:
            (staging / file_of(part)).replace(folder / file_of(part))
        else:
            (folder / file_of(part)).unlink(missing_ok=True)
    (staging / MANIFEST).replace(folder / MANIFEST)
