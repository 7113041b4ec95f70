"""What ``labelwise geometry`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.cli import options
from labelwise.features.options import BatchAtoms, RepresentationOptions
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import CHOICE, MODEL, Setting
from labelwise.studies.diagnostics.settings import DEFAULT_MAX_STRUCTURES, Kernels

DEFAULT_KERNELS = ("activation", "ntk-e", "activation-random", "ntk-random", "soap", "morgan")
_CAMPAIGN = "Campaign"


@dataclass(frozen=True, kw_only=True)
class GeometryCommand:
    """Compare what kernels tell apart: families of structures, and places along a path.

    Writes geometry.md, geometry.csv, families.csv, geometry.json, and heat maps as PNG and SVG.
    """

    pool: Annotated[list[str], Setting("Structures; labels are not needed.", metavar="FILE...")]
    group_by: Annotated[str, Setting("Info key of the families.", metavar="KEY")]
    out: Annotated[Path, Setting("Folder for tables and pictures.", flags=("--out", "-o"))]
    order_by: Annotated[
        str | None, Setting("Info key of the place along the path.", metavar="KEY")
    ] = None
    model: Annotated[
        list[str] | None,
        Setting(
            "As for 'labelwise select'; several times for several. The others are compared "
            "with the first.",
            metavar="[NAME=]MODEL",
            panel=MODEL,
        ),
    ] = None
    loading: Annotated[ModelSpec, options.Take(without=("path",))]
    campaign: Annotated[
        Path | None,
        Setting(
            "Also take the models of a campaign: before it, unless there is a --model, and "
            "after its --rounds.",
            metavar="DIR",
            panel=_CAMPAIGN,
        ),
    ] = None
    rounds: Annotated[
        str | None,
        Setting(
            "Rounds of the campaign; by default 1 and the last.", metavar="N,N...", panel=_CAMPAIGN
        ),
    ] = None
    kernels: Kernels = DEFAULT_KERNELS
    max_structures: Annotated[
        int, Setting("Sample, even over families and along the order.", panel=CHOICE)
    ] = DEFAULT_MAX_STRUCTURES
    representation: Annotated[
        RepresentationOptions, options.Take(only=("parameters", "sketch_dim", "seed"))
    ]
    batch_atoms: BatchAtoms = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
