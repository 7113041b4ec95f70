"""Attributes of a Zarr group that tell whether they are as they were written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_ATTRIBUTE = "labelwise_feature_store"


def make_group_metadata(content: Mapping[str, Any]) -> bytes:
    """Return the ``zarr.json`` of a Zarr v3 group that carries sealed content.

    Args:
        content: Plain data.
    """
    plain = json.loads(json.dumps(content))
    attributes = {_ATTRIBUTE: {"content": plain, "seal": _seal(plain)}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(group, indent=1).encode()


def open_group_metadata(metadata: bytes) -> tuple[dict[str, Any], str]:
    """Return the content of ``make_group_metadata`` and its seal.

    Args:
        metadata: A group's ``zarr.json``.

    Raises:
        ValueError, KeyError, TypeError: It is not one of ours, or is not as it was written.
    """
    group = load_strictly(metadata)
    sealed = group["attributes"][_ATTRIBUTE]
    content: dict[str, Any] = dict(sealed["content"])
    if group["zarr_format"] != 3 or group["node_type"] != "group":
        raise ValueError("it is not a Zarr v3 group")
    if sealed["seal"] != _seal(content):
        raise ValueError("its attributes do not agree with their checksum")
    return content, sealed["seal"]


def check_unchanged(metadata: bytes) -> None:
    """Look whether a group's ``zarr.json`` says what ``make_group_metadata`` wrote and no more.

    Raises:
        ValueError, KeyError, TypeError: It does not.
    """
    content, _ = open_group_metadata(metadata)
    if load_strictly(metadata) != json.loads(make_group_metadata(content)):
        raise ValueError("it says more than Labelwise wrote")


def load_strictly(text: bytes) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: It is no JSON, or has NaN or infinity, which are none.
    """

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _seal(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
