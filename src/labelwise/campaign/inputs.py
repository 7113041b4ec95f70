"""What a campaign is made of, and whether it is still the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelwise.campaign.config import CampaignConfig, is_free
from labelwise.errors import ReadError
from labelwise.potentials.spec import find_model, split_family
from labelwise.runtime.files import hash_file
from labelwise.structures.reading import Source, expand_specs

#: What the name of the pretrained model's file begins with, in a description of inputs.
MODEL_ROLE = "model: "


def describe_inputs(
    directory: Path, config: CampaignConfig, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the settings that shape the result, and the content of model and data files.

    Args:
        directory: The campaign.
        config: Its configuration.
        known: An earlier description. Files of unchanged size and time are not read again.

    Returns:
        Keys ``settings`` (dotted key to value) and ``files`` (role and path to size,
        time of change and SHA-256), ready for JSON.

    Raises:
        ReadError: A file is missing or cannot be read.
    """
    files: dict[str, Any] = {}
    former = {} if known is None else known["files"]
    for role, specs in _specs(config).items():
        for part in expand_specs([locate(directory, spec) for spec in specs]) if specs else ():
            name = f"{role}: {shorten(directory, part.path)}"
            files[name] = _describe_file(part.path, former.get(name))
    model = Path(split_family(find_model(directory, config.model.path))[1])
    if model.is_file():
        name = f"{MODEL_ROLE}{shorten(directory, model)}"
        files[name] = _describe_file(model, former.get(name))
    return {"settings": config.result_keys(), "files": files}


def digest_inputs(inputs: Mapping[str, Any]) -> str:
    """Return one word for the content of a description, whatever the files' times."""
    files = {name: item["sha256"] for name, item in inputs["files"].items()}
    text = json.dumps([_settings(inputs), files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def list_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what changed, one line for each setting and file."""
    lines = []
    was, is_now = _settings(old), _settings(new)
    for key in sorted({*was, *is_now}):
        before, after = was.get(key), is_now.get(key)
        if before != after:
            lines.append(f"{key}: {_show(before)} → {_show(after)}")
    for name in sorted({*old["files"], *new["files"]}):
        before, after = old["files"].get(name), new["files"].get(name)
        if before is None or after is None:
            lines.append(f"{name}: {'new' if before is None else 'no longer there'}")
        elif before["sha256"] != after["sha256"]:
            lines.append(f"{name}: other content, {before['size']:,} → {after['size']:,} bytes")
    return lines


def _settings(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description's settings, without those that older versions noted needlessly."""
    return {key: value for key, value in inputs["settings"].items() if not is_free(key)}


def locate(directory: Path, spec: str) -> str:
    """Return a path or pattern of the configuration; a relative one begins at the campaign."""
    return str(directory / spec)


def shorten(directory: Path, path: str | os.PathLike[str]) -> str:
    """Return a path relative to the campaign if it lies inside, so that it may be moved."""
    absolute = Path(path).absolute()
    home = directory.absolute()
    return str(absolute.relative_to(home)) if absolute.is_relative_to(home) else str(absolute)


def name_source(directory: Path, source: Source) -> Source:
    """Return a source with the file as the campaign's own records name it."""
    return Source(shorten(directory, source.file), source.frame)


def _specs(config: CampaignConfig) -> dict[str, list[str]]:
    data = config.data
    isolated = [] if data.isolated_atoms is None else [data.isolated_atoms]
    return {
        "pool": data.pool,
        "train": data.train,
        "valid": data.valid.files,
        "test": data.test.files,
        "replay": data.replay.files,
        "retain": data.retain.files,
        "target": data.target,
        "isolated_atoms": isolated,
    }


def _describe_file(path: Path, former: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror or error}") from error
    if path.is_dir():  # a database of several files, which is told by its names and times
        return {"size": 0, "mtime_ns": status.st_mtime_ns, "sha256": str(status.st_mtime_ns)}
    if former is not None:
        same = former["size"] == status.st_size and former["mtime_ns"] == status.st_mtime_ns
        if same:
            return dict(former)
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": hash_file(path),
    }


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
