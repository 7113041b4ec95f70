"""Rows of a campaign's structures, computed once and kept beside it for the map of its page.

Everything lies in ``report/`` inside the campaign's folder, which the campaign itself never looks
at, and may be removed at any time. A file says what it was made of; one that says anything
else, or is damaged, counts as absent.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labelwise.errors import WriteError
from labelwise.runtime.files import write_bytes

#: Folder inside a campaign.
FOLDER = "report"
#: Larger files than this are not kept, bytes.
MAX_BYTES = 2**28
_KEY = "made_of"


class KeptArrays:
    """Arrays in files, each with a word for what they were made of.

    Args:
        folder: Where they lie; made with the first file.

    Attributes:
        refusal: Why the last file could not be written; empty if it could.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.refusal = ""

    def load(self, name: str, made_of: str) -> dict[str, Any] | None:
        """Return arrays by name, None if there are none that were made of this.

        Args:
            name: The file's name without its ending.
            made_of: What ``digest`` returned.
        """
        try:
            with (
                self._path(name).open("rb") as stream,
                np.load(stream, allow_pickle=False) as content,
            ):
                if str(content[_KEY]) != made_of:
                    return None
                return {key: content[key] for key in content.files if key != _KEY}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, name: str, made_of: str, arrays: Mapping[str, Any]) -> None:
        """Keep arrays; where the folder cannot be written to they are not kept.

        Args:
            name: The file's name without its ending.
            made_of: What ``digest`` returned.
            arrays: Arrays of numbers or words, by name.
        """
        if sum(np.asarray(array).nbytes for array in arrays.values()) > MAX_BYTES:
            return
        content = io.BytesIO()
        np.savez(content, **{_KEY: np.array(made_of), **arrays})
        try:
            write_bytes(self._path(name), content.getvalue())
        except WriteError as error:
            self.refusal = str(error)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npz"


def digest(*parts: Any) -> str:
    """Return one word for plain data.

    Args:
        parts: What JSON can hold.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
