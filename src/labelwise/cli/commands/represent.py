"""What ``labelwise represent`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options


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
        typer.Option(
            "--out",
            "-o",
            help="Where the features go, as NumPy .npz; by default features.npz, unless there is "
            "a --store.",
        ),
    ] = None
    model: options.Model = None
    head: options.Head = None
    trust_model: options.Trust = False
    representation: options.Representation = "ntk-e"
    parameters: options.ParameterBlock = options.Parameters.embedding
    sketch_dim: options.SketchDim = None
    reduction: options.Reduction = "fields"
    probes: options.Probes = options.DEFAULT_PROBES
    energy_weight: options.EnergyWeight = 0.5
    seed: options.Seed = 0
    device: options.OnDevice = "auto"
    dtype: options.InPrecision = None
    batch_atoms: options.BatchAtoms = None
    max_atoms: options.MaxAtoms = None
    store: options.Store = None
    store_dtype: options.StoreDtype = options.StorageType.float32
    workers: options.Workers = 0
    ray: options.Ray = None
    ray_workers: options.RayWorkers = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
