"""What is said of a model before it is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.runtime.settings import MACHINE, MODEL, Setting

_FAMILY = re.compile(r"([a-z][a-z0-9_-]+):(?!//)(.+)")

Device = Annotated[
    str,
    Setting(
        "Where to compute; cuda:1 for the second GPU.",
        metavar="auto|cpu|cuda|mps",
        panel=MACHINE,
    ),
]


Head = Annotated[str | None, Setting("Head of a model that has several.", panel=MODEL)]
Trust = Annotated[
    bool,
    Setting(
        "Load a .model file, which runs code from it; it is refused otherwise.",
        flags=("--trust-model",),
        panel=MODEL,
    ),
]


@dataclass(frozen=True)
class ModelSpec:
    """A model, and how it is loaded; ``load_model`` does."""

    path: Annotated[
        str | None,
        Setting(
            "A model file, a name from 'labelwise models', such as 'demo', or FAMILY:FILE.",
            flags=("--model",),
            metavar="MODEL",
            panel=MODEL,
        ),
    ] = None
    device: Device = "auto"
    dtype: Annotated[
        str | None,
        Setting(
            "Precision of the model; by default its own.",
            choices=("float32", "float64"),
            panel=MACHINE,
        ),
    ] = None
    head: Head = None
    trust: Trust = False


def split_family(spec: str) -> tuple[str | None, str]:
    """Return the family that is named before a colon, and the name or path behind it.

    Args:
        spec: What ``load_potential`` takes, for instance ``sevennet:trained.pth``.

    Returns:
        None and all of it if no family is named: a colon may also be part of a path.
    """
    match = _FAMILY.fullmatch(spec)
    if match is None or Path(spec).expanduser().exists():
        return None, spec
    return match[1], match[2]


def find_model(directory: Path, spec: str) -> str:
    """Return a model with the path of its file where there is one in a folder, else as given.

    Args:
        directory: Where relative paths begin.
        spec: What ``load_potential`` takes.
    """
    family, name = split_family(spec)
    path = directory / name
    found = str(path) if path.is_file() else name
    return found if family is None else f"{family}:{found}"
