"""Whose rows a feature store holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labelwise.errors import ArgumentError, ReadError
from labelwise.features.options import STORAGE_DTYPES

#: Of what is written; version 1 kept more columns of a row, and is read as well.
FORMAT_VERSION = 2
_READ_VERSIONS = (1, FORMAT_VERSION)


@dataclass(frozen=True)
class Identity:
    """All that the numbers in a feature store depend on, beside the structures.

    Attributes:
        representation: Its name in the registry.
        blocks: Size and weight of each part of a row, see ``FeatureBlock``.
        options: Of the representation, as plain data.
        model: Hash of the model's content; None for a representation without a model.
        storage_dtype: How rows are kept: ``float32``, ``float16`` or ``bfloat16``.

    Raises:
        ArgumentError: no blocks, a size < 1, a weight < 0 or not finite, an unknown storage
            dtype, or options that are not plain data.
    """

    representation: str
    blocks: tuple[tuple[int, float], ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    storage_dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.blocks or any(size < 1 for size, _ in self.blocks):
            raise ArgumentError(f"blocks={self.blocks}: at least one, of at least one entry each")
        if any(not math.isfinite(weight) or weight < 0 for _, weight in self.blocks):
            raise ArgumentError(f"blocks={self.blocks}: a weight must be finite and >= 0")
        if self.storage_dtype not in STORAGE_DTYPES:
            raise ArgumentError(
                f"storage_dtype={self.storage_dtype!r}; allowed are {', '.join(STORAGE_DTYPES)}"
            )
        try:
            json.dumps(dict(self.options), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"options={self.options} must be plain data ({error})") from error

    @property
    def width(self) -> int:
        """Entries of a row, d."""
        return sum(size for size, _ in self.blocks)

    def to_record(self) -> dict[str, Any]:
        """Return the same as JSON would give it back."""
        record = {
            "format_version": FORMAT_VERSION,
            "representation": self.representation,
            "options": dict(self.options),
            "blocks": [[size, float(weight)] for size, weight in self.blocks],
            "model": self.model,
            "storage_dtype": self.storage_dtype,
            "width": self.width,
        }
        plain: dict[str, Any] = json.loads(json.dumps(record))
        return plain

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Identity:
        """Return what ``to_record`` described.

        Raises:
            ReadError: The format is of another version.
            KeyError, TypeError, ValueError: It is not such a record.
        """
        if record["format_version"] not in _READ_VERSIONS:
            raise ReadError(
                f"the feature store has format {record['format_version']}; this version of "
                f"Labelwise reads formats 1 to {FORMAT_VERSION}: use the version that wrote it, or "
                "another folder"
            )
        return cls(
            representation=record["representation"],
            blocks=tuple((int(size), float(weight)) for size, weight in record["blocks"]),
            options=record["options"],
            model=record["model"],
            storage_dtype=record["storage_dtype"],
        )

    def explain_difference(self, other: Identity) -> str:
        """Say in words in what ``other`` is not this identity; empty if it is the same."""
        former, now = self.to_record(), other.to_record()
        words = []
        if former["model"] != now["model"]:
            words.append(_explain_models(former["model"], now["model"]))
        names = ("representation", "blocks", "storage_dtype")
        words += [
            f"{name} was {former[name]} and is {now[name]}"
            for name in names
            if former[name] != now[name]
        ]
        before, after = former["options"], now["options"]
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name) or (name in before) != (name in after):
                was, new = before.get(name, "not set"), after.get(name, "not set")
                words.append(f"option {name} was {was} and is {new}")
        return ", ".join(words)


def _explain_models(former: str | None, now: str | None) -> str:
    if former is None:
        return "it was made without a model"
    return "it was made with a model" if now is None else "another model"
