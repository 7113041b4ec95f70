"""What ``labelwise represent`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.cli import options
from labelwise.features.options import StoreOptions
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import Setting
from labelwise.selection.options import SelectionOptions


@dataclass(frozen=True, kw_only=True)
class RepresentCommand:
    """Compute the features of structures; a killed run goes on where it was.

    With --store they go into a folder from which 'labelwise select --store' chooses, and what is
    there is not computed again. Else into a file, which holds features (n, d), not normalised,
    index, file and frame of each row, and how they were made; of soap also the names of the
    columns, those of the pairs of elements that were found.
    """

    pool: options.Pool
    out: Annotated[
        Path | None,
        Setting(
            "Where the features go, as NumPy .npz; by default features.npz, unless there is "
            "a --store.",
            flags=("--out", "-o"),
        ),
    ] = None
    model: ModelSpec
    selection: Annotated[
        SelectionOptions, options.Take(without=("normalise", "rule", "shortlist", "regularisation"))
    ]
    storing: Annotated[StoreOptions, options.Take(without=("memory_bytes",))]
    engine: options.EngineOptions
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
