"""What ``labelwise check_data`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.selection.options import DEFAULT_REGULARISATION
from labelwise.structures.label_keys import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY
from labelwise.studies.curation.settings import DEFAULT_NEAR, DEFAULT_THRESHOLD


@dataclass(frozen=True, kw_only=True)
class CheckDataCommand:
    """Find duplicates, structures that stand alone, and labels that do not fit.

    Without a model only exact duplicates and labels are looked at. With one, or a
    representation that needs none, near duplicates (moved, rotated and re-ordered copies
    among them) and structures that all others do not explain are found as well.
    """

    pool: options.Pool
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write all structures but exact duplicates here."),
    ] = None
    near: Annotated[
        float,
        typer.Option(
            "--near",
            help="Kernel distance below which two structures are near duplicates.",
            rich_help_panel=options.CHOICE,
        ),
    ] = DEFAULT_NEAR
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold",
            help="Robust standard deviations beyond which something is an outlier.",
            rich_help_panel=options.CHOICE,
        ),
    ] = DEFAULT_THRESHOLD
    regularisation: Annotated[
        float,
        typer.Option(
            "--regularisation",
            help="λ of the posterior variance of each structure given all others.",
            rich_help_panel=options.CHOICE,
        ),
    ] = DEFAULT_REGULARISATION
    energy_key: Annotated[
        str, typer.Option("--energy-key", help="Info key of the energies, eV.")
    ] = DEFAULT_ENERGY_KEY
    forces_key: Annotated[
        str, typer.Option("--forces-key", help="Array key of the forces, eV/Å.")
    ] = DEFAULT_FORCES_KEY
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="KEY",
            help="Name the groups, by this info key, that share a structure.",
            rich_help_panel=options.OUTPUT,
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
    normalise: options.Normalise = None
    seed: options.Seed = 0
    device: options.OnDevice = "auto"
    dtype: options.InPrecision = None
    batch_atoms: options.BatchAtoms = None
    summary: Annotated[
        Path | None,
        typer.Option("--summary", help="Where a JSON record goes.", rich_help_panel=options.OUTPUT),
    ] = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
