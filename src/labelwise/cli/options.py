"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from labelwise.errors import UnknownNameError, check_name
from labelwise.features.options import REDUCTION_NAMES

DEFAULT_PROBES = "8"


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


class Normalisation(StrEnum):
    """What feature rows are divided by."""

    cosine = "cosine"
    none = "none"


class StorageType(StrEnum):
    """How a feature store keeps numbers."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def words_of(name: str, allowed: Iterable[str]) -> Callable[[str | None], str | None]:
    """Return the check of an option whose value is a word, or words with commas between.

    It is made before anything is read, and where the command has no use for the value, too.

    Args:
        name: What the words are, for messages.
        allowed: Them.
    """

    def check(value: str | None) -> str | None:
        for word in [] if value is None else value.split(","):
            check_name(name, word.strip(), allowed)
        return value

    return check


MODEL = "Model"
CHOICE = "Choice"
MACHINE = "Machine"
OUTPUT = "Output"
SCALE = "Large pools"

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
        help="Load a .model file, which runs code from it; it is refused otherwise.",
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
        "--representation",
        "-r",
        help="ntk-e, ntk-f, ntk-ef, activation; ntk-random, activation-random: the same network "
        "untrained; soap, morgan: no model; or random.",
        rich_help_panel=CHOICE,
    ),
]
ParameterBlock = Annotated[
    Parameters,
    typer.Option(
        "--parameters",
        metavar="BLOCK",
        help="Parameters behind the tangent kernels: embedding, readout, products or all.",
        rich_help_panel=CHOICE,
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
Reduction = Annotated[
    str,
    typer.Option(
        "--reduction",
        callback=words_of("reduction", REDUCTION_NAMES),
        help="How ntk-f and ntk-ef make one row of a structure's force tangents: rms, "
        "element-rms, force-norm, fields or moments.",
        rich_help_panel=CHOICE,
    ),
]
Probes = Annotated[
    str,
    typer.Option(
        "--probes",
        metavar="N|exact",
        help="Random probes in place of all 3N force tangents of a structure, for ntk-f, ntk-ef "
        "and joint-pv.",
        rich_help_panel=CHOICE,
    ),
]
EnergyWeight = Annotated[
    float,
    typer.Option(
        "--energy-weight",
        help="Part of the energy in the kernel of ntk-ef and in joint-pv, 0 to 1.",
        rich_help_panel=CHOICE,
    ),
]
Normalise = Annotated[
    Normalisation | None,
    typer.Option(
        "--normalise",
        help="Divide each structure's features by their own norm (cosine), or all by one "
        "number (none), so that their length counts; by default none for joint-pv, else cosine.",
        rich_help_panel=CHOICE,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        help="Seeds sketches, probes, random weights and the random rule.",
        rich_help_panel=CHOICE,
    ),
]
EnergyKey = Annotated[str, typer.Option("--energy-key", help="Info key of the energies, eV.")]
ForcesKey = Annotated[str, typer.Option("--forces-key", help="Array key of the forces, eV/Å.")]
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
MaxAtoms = Annotated[
    int | None,
    typer.Option(
        "--max-atoms",
        min=1,
        help="Set structures of more atoms aside; by default those that do not fit into memory.",
        rich_help_panel=MACHINE,
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
Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Keep features in this folder: a pool may be larger than memory, a killed run goes "
        "on, and what is there is not computed again.",
        rich_help_panel=SCALE,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="What the process may occupy while it chooses, such as 4GB; by default half of "
        "what it may use. Needs --store.",
        rich_help_panel=SCALE,
    ),
]
StoreDtype = Annotated[
    StorageType,
    typer.Option(
        "--store-dtype",
        help="How --store keeps numbers; half precision takes half the disk.",
        rich_help_panel=SCALE,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=0,
        help="Processes that read structures and build neighbour lists ahead of the model. "
        "Needs --store.",
        rich_help_panel=SCALE,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Compute features and score the pool on Ray: on this machine without an address, "
        "else on the cluster at it ('auto' for the one that this node belongs to). Needs --store, "
        "in a folder that all workers see.",
        rich_help_panel=SCALE,
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(
        "--ray-workers",
        min=1,
        help="Workers on Ray; by default one for each core, or each GPU with --device cuda.",
        rich_help_panel=SCALE,
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


def parse_probes(text: str) -> int | None:
    """Return the number of probes, or None for ``exact``.

    Raises:
        UnknownNameError: Neither ``exact`` nor an integer of at least 1.
    """
    if text == "exact":
        return None
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise UnknownNameError(f"--probes is {text!r}; give an integer of at least 1, or 'exact'")
    return int(text)
