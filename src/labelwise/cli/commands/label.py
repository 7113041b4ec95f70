"""What ``labelwise label`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.campaign.yaml_files import read_overrides
from labelwise.cli import options
from labelwise.errors import ArgumentError
from labelwise.runtime.settings import OUTPUT, SCALE, Setting
from labelwise.structures.label_keys import LabelKeys


@dataclass(frozen=True, kw_only=True)
class LabelCommand:
    """Calculate energies and forces of structures, each once, here or in a SLURM queue.

    Every label is kept in a store as soon as it is known. A run that was killed goes on with what
    is missing, and a campaign whose labeller names the store pays for nothing that is in it.

    Exit code 4: jobs are in the queue and are not waited for (--no-wait), or were cancelled; run
    it again.
    """

    pool: Annotated[
        list[str],
        typer.Argument(
            metavar="POOL...",
            help="Structures: files, globs, file@start:stop:step; what ASE reads, also .gz, "
            ".bz2, .xz, .zst.",
        ),
    ]
    out: Annotated[
        Path,
        Setting(
            "The labelled structures, extended XYZ; a record with the reasons of failures goes "
            "beside it, as .json.",
            flags=("--out", "-o"),
        ),
    ]
    calculator: Annotated[
        str | None,
        Setting("Any ASE calculator: package.module.Class, or a name ASE knows (orca)."),
    ] = None
    slurm: Annotated[bool, Setting("Calculate in jobs of SLURM.", panel=SCALE)] = False
    settings: Annotated[
        Path | None,
        Setting("A YAML file: the section 'labeller' of a campaign.yaml, or all of it."),
    ] = None
    changes: Annotated[
        list[str] | None,
        Setting(
            "A setting of the labeller, such as arguments.method=GFN2-xTB, n_workers=4, "
            "partition=cpu or sbatch.mem=4G; may be given again.",
            flags=("--set",),
            metavar="KEY=VALUE",
        ),
    ] = None
    store: Annotated[
        Path | None,
        Setting("Folder where labels are kept; by default OUT with .labels at its end."),
    ] = None
    no_wait: Annotated[
        bool,
        Setting("Submit calculations to the queue and leave; run again for labels.", panel=SCALE),
    ] = False
    cancel: Annotated[
        bool,
        Setting("Cancel the jobs that are in the queue; labels that came are kept.", panel=SCALE),
    ] = False
    retry_failed: Annotated[bool, Setting("Calculate anew what failed before.")] = False
    break_lock: options.BreakLock = False
    keys: LabelKeys
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: Annotated[
        bool, Setting("Replace an output file that is not of this command.", panel=OUTPUT)
    ] = False

    def check(self) -> None:
        """Raise ``LabelwiseError`` if what is asked cannot be done."""
        read_overrides(self.changes or ())
        if self.calculator is None and self.settings is None:
            raise ArgumentError("give a calculator with --calculator, or a file with --settings")
