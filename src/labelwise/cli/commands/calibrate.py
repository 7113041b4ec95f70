"""What ``labelwise calibrate`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.selection.options import DEFAULT_REGULARISATION
from labelwise.structures.label_keys import DEFAULT_ENERGY_KEY
from labelwise.studies.diagnostics.settings import DEFAULT_MAX_LABELS, PAPER_KERNELS


@dataclass(frozen=True, kw_only=True)
class CalibrateCommand:
    """Hold each kernel's uncertainty against the pretrained model's errors in energy.

    A Gaussian process with each kernel learns what the model leaves unexplained, from labels
    in the order in which posterior variance would buy them. Writes calibration.csv, .md and
    .json, reliability.png and .svg, prefixes.png and .svg, and a JSON file for each finished
    kernel.
    """

    pool: Annotated[
        list[str],
        typer.Option("--pool", metavar="FILE...", help="Structures with energies, to learn from."),
    ]
    valid: Annotated[
        list[str],
        typer.Option(
            "--valid", metavar="FILE...", help="With energies; they choose how many labels."
        ),
    ]
    test: Annotated[
        list[str],
        typer.Option("--test", metavar="FILE...", help="With energies; what is reported."),
    ]
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="As for 'labelwise select'.")
    ]
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder; a calibration that was interrupted goes on there."
        ),
    ]
    train: Annotated[
        list[str] | None,
        typer.Option(
            "--train",
            metavar="FILE...",
            help="The initial set, with energies, not in the pool; by default drawn from it.",
        ),
    ] = None
    kernels: Annotated[
        str,
        typer.Option(
            "--kernels",
            help="Representations to compare, with commas between.",
            show_default=", ".join(PAPER_KERNELS),
            rich_help_panel=options.CHOICE,
        ),
    ] = ",".join(PAPER_KERNELS)
    n_initial: Annotated[
        int, typer.Option("--n-initial", min=2, help="Structures drawn to begin with.")
    ] = 10
    step: Annotated[int, typer.Option("--step", min=1, help="Labels between two fits.")] = 5
    max_labels: Annotated[
        int | None,
        typer.Option(
            "--max-labels",
            min=2,
            help="Labels of the last fit.",
            show_default=f"{DEFAULT_MAX_LABELS}, or all",
        ),
    ] = None
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Initial sets.")] = 1
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything that is drawn.")] = 0
    references: Annotated[
        str,
        typer.Option(
            "--references",
            metavar="prefix|initial|checkpoint",
            help="Fit atomic reference energies to the labels of each prefix or of the initial "
            "set, or keep the checkpoint's, for labels of its own level of theory.",
            rich_help_panel=options.CHOICE,
        ),
    ] = "prefix"
    regularisation: Annotated[
        float,
        typer.Option(
            "--regularisation",
            help="λ of acquisition and Gaussian process.",
            rich_help_panel=options.CHOICE,
        ),
    ] = DEFAULT_REGULARISATION
    normalise: Annotated[
        options.Normalisation,
        typer.Option(
            "--normalise",
            help="Divide each structure's features by their own norm, or all by one number.",
            rich_help_panel=options.CHOICE,
        ),
    ] = options.Normalisation.cosine
    per_atom: Annotated[
        bool,
        typer.Option(
            "--per-atom", help="Energies per atom, not total.", rich_help_panel=options.CHOICE
        ),
    ] = False
    with_noise: Annotated[
        bool,
        typer.Option(
            "--with-noise",
            help="Count λ as noise of the labels in the predicted variance.",
            rich_help_panel=options.CHOICE,
        ),
    ] = False
    n_bins: Annotated[
        int,
        typer.Option("--bins", min=1, help="Of the ENCE.", rich_help_panel=options.CHOICE),
    ] = 10
    parameters: options.ParameterBlock = options.Parameters.embedding
    sketch_dim: options.SketchDim = None
    reduction: options.Reduction = "fields"
    probes: options.Probes = options.DEFAULT_PROBES
    energy_weight: options.EnergyWeight = 0.5
    energy_key: options.EnergyKey = DEFAULT_ENERGY_KEY
    head: options.Head = None
    trust_model: options.Trust = False
    device: options.OnDevice = "auto"
    dtype: options.InPrecision = None
    batch_atoms: options.BatchAtoms = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Compute anew what --out has of other settings.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False
