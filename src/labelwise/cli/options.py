"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from labelwise.errors import check_name


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


@dataclass(frozen=True)
class Take:
    """Which settings of a group a command takes as options.

    Attributes:
        only: These fields; none for all.
        without: All but these.
        defaults: Other defaults than the group's; ``MISSING`` for what has to be given.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


#: Of a model that has to be given.
MODEL_REQUIRED = Take(defaults={"path": MISSING})
MODEL = "Model"
CHOICE = "Choice"
MACHINE = "Machine"
OUTPUT = "Output"
SCALE = "Large pools"

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
    Literal["float32", "float16", "bfloat16"],
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
