"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Precision(StrEnum):
    """Floating-point type of the model."""

    float32 = "float32"
    float64 = "float64"


class Parameters(StrEnum):
    """Parameter blocks that a tangent kernel can be taken over."""

    embedding = "embedding"
    readout = "readout"
    products = "products"
    all = "all"


MODEL = "Model"
CHOICE = "Choice"
MACHINE = "Machine"
OUTPUT = "Output"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="A mace-torch .model file, a name from 'labelwise models', or 'demo'.",
        rich_help_panel=MODEL,
    ),
]
Head = Annotated[
    str | None,
    typer.Option("--head", help="Head of a model that has several.", rich_help_panel=MODEL),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-model",
        help="Do not warn that loading a .model file runs code from it.",
        rich_help_panel=MODEL,
    ),
]
Pool = Annotated[
    list[str],
    typer.Option(
        "--pool",
        metavar="FILE...",
        help="Unlabelled structures: files, globs, file@start:stop:step; what ASE reads, "
        "also .gz, .bz2, .xz, .zst.",
    ),
]
Train = Annotated[
    list[str] | None,
    typer.Option(
        "--train", metavar="FILE...", help="Structures that are labelled already, likewise."
    ),
]
Representation = Annotated[
    str,
    typer.Option(
        "--representation", "-r", help="activation, ntk-e or random.", rich_help_panel=CHOICE
    ),
]
ParameterBlock = Annotated[
    Parameters,
    typer.Option(
        "--parameters", help="Parameters behind the tangent kernel.", rich_help_panel=CHOICE
    ),
]
SketchDim = Annotated[
    int | None,
    typer.Option(
        "--sketch-dim",
        min=1,
        help="Length to which the gradients of readout, products or all are sketched.",
        rich_help_panel=CHOICE,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, help="Seeds the sketch and the random rule.", rich_help_panel=CHOICE
    ),
]
OnDevice = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|mps",
        help="Where to compute; cuda:1 for the second GPU.",
        rich_help_panel=MACHINE,
    ),
]
InPrecision = Annotated[
    Precision | None,
    typer.Option(
        "--dtype", help="Precision of the model; by default its own.", rich_help_panel=MACHINE
    ),
]
BatchAtoms = Annotated[
    int | None,
    typer.Option(
        "--batch-atoms",
        min=1,
        help="Atoms evaluated at once; halved when memory runs out.",
        rich_help_panel=MACHINE,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=OUTPUT),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the summary as JSON on standard output.", rich_help_panel=OUTPUT
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace an output file that Labelwise did not write.",
        rich_help_panel=OUTPUT,
    ),
]
