"""What ``labelwise data`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.runtime.settings import Seed, Setting

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Files, or folders of one data set.")
]
FormatName = Annotated[
    str | None,
    Setting("Take the files for this format, see 'labelwise data list'.", flags=("--format",)),
]


@dataclass(frozen=True, kw_only=True)
class DataListCommand:
    """List the formats that can be read, and the pools that can be built."""

    as_json: options.AsJson = False


@dataclass(frozen=True, kw_only=True)
class DataInspectCommand:
    """Say what a file holds: how much of what, ranges of labels, level of theory, licence."""

    path: Annotated[Path, typer.Argument(help="A file, or a folder of one data set.")]
    read: Annotated[int, Setting("Structures to read and check, evenly spread.", ge=1)] = 10_000
    read_all: Annotated[bool, Setting("Read and check every one.", flags=("--all",))] = False
    format_name: FormatName = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False


@dataclass(frozen=True, kw_only=True)
class DataBuildCommand:
    """Make the papers' pools of published files: extended XYZ and a manifest.

    The same files and seed give the same bytes on every machine.
    """

    name: Annotated[str, typer.Argument(help="Of the pools that 'labelwise data list' names.")]
    paths: Paths
    out: Annotated[
        Path, Setting("Folder; each pool goes to a folder in it.", flags=("--out", "-o"))
    ]
    seed: Seed = 0
    size: Annotated[int | None, Setting("Structures in place of the protocol's number.", ge=10)] = (
        None
    )
    adsorption: Annotated[
        bool, Setting("Energies against slab and gas, where the files give the reference (OC20).")
    ] = False
    format_name: FormatName = None
    force: Annotated[bool, Setting("Replace other pools there.")] = False
    quiet: options.Quiet = False
    as_json: options.AsJson = False


@dataclass(frozen=True, kw_only=True)
class DataExportCommand:
    """Write structures, or some of them, in another format."""

    paths: Paths
    to: Annotated[str, Setting("Format, see 'labelwise data list'.")]
    out: Annotated[Path, Setting("The file or folder to write.", flags=("--out", "-o"))]
    subset: Annotated[list[str] | None, Setting("Only this source; may be repeated.")] = None
    split: Annotated[list[str] | None, Setting("Only this split; may be repeated.")] = None
    elements: Annotated[str | None, Setting("Only of these elements: H,C,N,O.")] = None
    charge: Annotated[list[int] | None, Setting("Only this charge; may be repeated.")] = None
    spin: Annotated[list[int] | None, Setting("Only this multiplicity; may be repeated.")] = None
    max_atoms: Annotated[int | None, Setting("Only up to so many atoms.", ge=1)] = None
    format_name: FormatName = None
    force: Annotated[bool, Setting("Replace what is there.")] = False
    quiet: options.Quiet = False
