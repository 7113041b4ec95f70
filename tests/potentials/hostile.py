"""Files that run code when they are unpickled: each makes a marker."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch

#: How the code is packed.
HOSTILE_KINDS = (
    "archive",
    "legacy",
    "plain-pickle",
    "old-pickle",
    "checkpoint",
    "npz",
    "scripted",
    "tar",
)
#: What the file is called.
HOSTILE_NAMES = (
    "x.model",
    "x.pt",
    "X.PT",
    "x.pth",
    "x.npz",
    "x.pkl",
    "x.safetensors",
    "x.extxyz",
    "bare",
)


class Hostile:
    """An object whose pickle makes a folder.

    Args:
        marker: The folder.
    """

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self._marker,))


def write_hostile(path: Path, kind: str, marker: Path) -> None:
    """Write a file that makes a marker if it is unpickled.

    Args:
        path: Where.
        kind: One of ``HOSTILE_KINDS``.
        marker: What it makes.
    """
    content = Hostile(marker)
    buffer = io.BytesIO()
    if kind == "archive":
        torch.save(content, buffer)
    elif kind == "checkpoint":
        torch.save({"format_version": 1, "state_dict": content}, buffer)
    elif kind == "legacy":
        torch.save(content, buffer, _use_new_zipfile_serialization=False)
    elif kind == "plain-pickle":
        buffer.write(pickle.dumps(content))
    elif kind == "old-pickle":
        buffer.write(pickle.dumps(content, protocol=0))
    elif kind in ("npz", "scripted"):
        _write_archive(buffer, pickle.dumps(content, protocol=2), is_script=kind == "scripted")
    else:
        _write_tar(buffer, pickle.dumps(content, protocol=2))
    path.write_bytes(buffer.getvalue())


def _write_archive(buffer: io.BytesIO, pickled: bytes, *, is_script: bool) -> None:
    """Write a zip of an array and a pickle, with or without what marks TorchScript."""
    names = ["x.npy", "archive/data.pkl", "archive/version"]
    names += ["archive/constants.pkl"] if is_script else []
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"3\n" if name.endswith("version") else pickled)


def _write_tar(buffer: io.BytesIO, pickled: bytes) -> None:
    """Write the container of torch before 0.1.10."""
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(pickled)
            archive.addfile(entry, io.BytesIO(pickled))
