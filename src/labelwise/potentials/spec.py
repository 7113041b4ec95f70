"""What is said of a model before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from labelwise.runtime.settings import MACHINE, MODEL, Setting

Device = Annotated[
    str,
    Setting(
        "Where to compute; cuda:1 for the second GPU.",
        metavar="auto|cpu|cuda|mps",
        panel=MACHINE,
    ),
]


@dataclass(frozen=True)
class ModelSpec:
    """A model, and how it is loaded; ``load_model`` does."""

    path: Annotated[
        str | None,
        Setting(
            "A mace-torch .model file, a name from 'labelwise models', or 'demo'.",
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
    head: Annotated[str | None, Setting("Head of a model that has several.", panel=MODEL)] = None
    trust: Annotated[
        bool,
        Setting(
            "Load a .model file, which runs code from it; it is refused otherwise.",
            flags=("--trust-model",),
            panel=MODEL,
        ),
    ] = False
