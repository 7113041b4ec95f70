"""Finished parts of a long computation on disk, so that an interrupted one goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelwise.errors import ArgumentError, ReadError, WriteError
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import to_json

_HASHED = ("model", "pool", "train", "valid", "test")


class PartStore:
    """One JSON file for each finished part, with the settings that it was made with.

    Args:
        folder: Where; None keeps nothing.
        settings: All that results depend on, as plain data; under ``model``, ``pool``,
            ``train``, ``valid`` and ``test`` hashes of contents.
        kind: What a part is, in words, such as ``a block of a study``.
        force: Pass over files of other settings in place of raising.

    Raises:
        WriteError: The folder is a file.
    """

    def __init__(
        self, folder: Path | None, settings: Mapping[str, Any], *, kind: str, force: bool
    ) -> None:
        for place in () if folder is None else (folder, folder.parent):
            if place.exists() and not place.is_dir():
                raise WriteError(f"{place} is a file; {kind} needs a folder")
        self._folder, self._kind, self._force = folder, kind, force
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a part if it is there; numbers that were NaN are None.

        Raises:
            ArgumentError: It was made with other settings, which the message names.
            ReadError: It is damaged.
        """
        if self._folder is None or not (path := self._folder / f"{name}.json").exists():
            return None
        try:
            content = json.loads(path.read_text())
            settings, result = dict(content["settings"]), dict(content["result"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReadError(
                f"{path} is not {self._kind} ({error}); delete it, or choose another folder"
            ) from error
        if settings == self._settings:
            return result
        if self._force:
            return None
        raise ArgumentError(
            f"{path} was made with other settings: {_explain(settings, self._settings)}; choose "
            "another folder, or compute it anew with --force"
        )

    def write(self, name: str, result: Mapping[str, Any]) -> None:
        """Keep a part that is done.

        Args:
            name: The file's, without its ending.
            result: Plain data.

        Raises:
            WriteError: The file cannot be written.
        """
        if self._folder is not None:
            content = {"settings": self._settings, "result": without_nan(dict(result))}
            write_text(self._folder / f"{name}.json", to_json(content))


def without_nan(value: Any) -> Any:
    """Return plain data with None in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _explain(former: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the settings that differ, contents of files and models without their hashes."""
    differing = [key for key in {**former, **now} if former.get(key) != now.get(key)]
    words = [
        f"another {key}" if key in _HASHED else f"{key} was {former.get(key)} and is {now.get(key)}"
        for key in differing
    ]
    return ", ".join(words)
