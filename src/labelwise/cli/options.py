"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Annotated, Any

from labelwise.runtime.settings import CHOICE, OUTPUT, SCALE, Setting


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

Pool = Annotated[
    list[str],
    Setting(
        "Unlabelled structures: files, globs, file@start:stop:step; what ASE reads, "
        "also .gz, .bz2, .xz, .zst.",
        metavar="FILE...",
    ),
]
Train = Annotated[
    list[str] | None, Setting("Structures that are labelled already, likewise.", metavar="FILE...")
]
NSelect = Annotated[int, Setting("Structures to choose.", flags=("-n", "--n-select"), ge=1)]
Strict = Annotated[bool, Setting("Fail when a structure would be set aside.", panel=CHOICE)]
Workers = Annotated[
    str,
    Setting(
        "Processes that compute, this one among them; with --device cuda they build neighbour "
        "lists ahead of the model. auto: as many as there are cores, when they pay.",
        metavar="N|auto",
        panel=SCALE,
    ),
]
Threads = Annotated[
    int,
    Setting("Threads of each process.", ge=1, panel=SCALE),
]
Quiet = Annotated[bool, Setting("Print errors only.", flags=("--quiet", "-q"), panel=OUTPUT)]
AsJson = Annotated[
    bool, Setting("Print the summary as JSON on standard output.", flags=("--json",), panel=OUTPUT)
]
BreakLock = Annotated[bool, Setting("Take it from a process that has ended for sure.")]
Force = Annotated[
    bool, Setting("Replace an output file that Labelwise did not write.", panel=OUTPUT)
]


@dataclass(frozen=True)
class EngineOptions:
    """Which processes compute."""

    workers: Workers = "auto"
    threads: Threads = 1
    ray: Annotated[
        str | None,
        Setting(
            "Compute features and score the pool on Ray: on this machine without an address, "
            "else on the cluster at it ('auto' for the one that this node belongs to). Needs "
            "--store, in a folder that all workers see.",
            metavar="[ADDRESS]",
            panel=SCALE,
        ),
    ] = None
    ray_workers: Annotated[
        int | None,
        Setting(
            "Workers on Ray; by default one for each core, or each GPU with --device cuda.",
            ge=1,
            panel=SCALE,
        ),
    ] = None
