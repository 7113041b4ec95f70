"""What ``labelwise data`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Files, or folders of one data set.")
]
FormatName = Annotated[
    str | None,
    typer.Option("--format", help="Take the files for this format, see 'labelwise data list'."),
]


@dataclass(frozen=True, kw_only=True)
class DataListCommand:
    """List the formats that can be read, and the pools that can be built."""

    as_json: options.AsJson = False


@dataclass(frozen=True, kw_only=True)
class DataInspectCommand:
    """Say what a file holds: how much of what, ranges of labels, level of theory, licence."""

    path: Annotated[Path, typer.Argument(help="A file, or a folder of one data set.")]
    read: Annotated[
        int,
        typer.Option("--read", min=1, help="Structures to read and check, evenly spread."),
    ] = 10_000
    read_all: Annotated[bool, typer.Option("--all", help="Read and check every one.")] = False
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
        Path, typer.Option("--out", "-o", help="Folder; each pool goes to a folder in it.")
    ]
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides what is drawn.")] = 0
    size: Annotated[
        int | None,
        typer.Option("--size", min=10, help="Structures in place of the protocol's number."),
    ] = None
    adsorption: Annotated[
        bool,
        typer.Option(
            "--adsorption",
            help="Energies against slab and gas, where the files give the reference (OC20).",
        ),
    ] = False
    format_name: FormatName = None
    force: Annotated[bool, typer.Option("--force", help="Replace other pools there.")] = False
    quiet: options.Quiet = False
    as_json: options.AsJson = False


@dataclass(frozen=True, kw_only=True)
class DataExportCommand:
    """Write structures, or some of them, in another format."""

    paths: Paths
    to: Annotated[str, typer.Option("--to", help="Format, see 'labelwise data list'.")]
    out: Annotated[Path, typer.Option("--out", "-o", help="The file or folder to write.")]
    subset: Annotated[
        list[str] | None, typer.Option("--subset", help="Only this source; may be repeated.")
    ] = None
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Only this split; may be repeated.")
    ] = None
    elements: Annotated[
        str | None, typer.Option("--elements", help="Only of these elements: H,C,N,O.")
    ] = None
    charge: Annotated[
        list[int] | None, typer.Option("--charge", help="Only this charge; may be repeated.")
    ] = None
    spin: Annotated[
        list[int] | None,
        typer.Option("--spin", help="Only this multiplicity; may be repeated."),
    ] = None
    max_atoms: Annotated[
        int | None, typer.Option("--max-atoms", min=1, help="Only up to so many atoms.")
    ] = None
    format_name: FormatName = None
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False
    quiet: options.Quiet = False
