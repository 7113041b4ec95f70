"""The protocols of the papers, as ``presets.yaml`` has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from labelwise.campaign.yaml_files import read_yaml

#: How pools are made of labelled files.
Layout = Literal["natural", "mixed", "random"]
#: By what a pool is shifted against the test set.
Shift = Literal["family", "path", "energy"]
SHIFTS: tuple[str, ...] = get_args(Shift)


@dataclass(frozen=True)
class Preset:
    """A protocol.

    Attributes:
        study: Keys of ``study.yaml`` but for model and pools; the first method is the reference.
        layout: How pools are made of labelled files.
        n_pools: Pools to make of labelled files; None for the layout's number.
        is_biased: Whether pools are thinned against the test set.
        build: Recipe of ``datasets.builds`` that makes the pools of published files; None for
            labelled files in the layout.
        has_labels: Whether the pools come with labels to begin with.
    """

    study: Mapping[str, Any]
    layout: Layout = "natural"
    n_pools: int | None = None
    is_biased: bool = False
    build: str | None = None
    has_labels: bool = False


def _read_presets() -> dict[str, Preset]:
    content = read_yaml(Path(__file__).with_name("presets.yaml"))
    return {name: Preset(study=study, **study.pop("from")) for name, study in content.items()}


PRESETS: Mapping[str, Preset] = MappingProxyType(_read_presets())
