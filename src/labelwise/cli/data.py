"""``labelwise data``: published data sets, looked at, made into pools, and converted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from ase.data import atomic_numbers
from rich import box
from rich.table import Table

from labelwise.cli import console, options
from labelwise.cli.app import app
from labelwise.cli.help import Application
from labelwise.cli.signals import terminated_as_interrupted
from labelwise.cli.tables import show_table
from labelwise.errors import ArgumentError, check_name
from labelwise.runtime.provenance import to_json
from labelwise.structures.datasets.building import build_pools
from labelwise.structures.datasets.builds import BUILDS
from labelwise.structures.datasets.exporting import export_data, list_writable
from labelwise.structures.datasets.inspecting import Inspection, inspect_data
from labelwise.structures.datasets.registry import load_formats
from labelwise.structures.datasets.survey import Query
from labelwise.structures.slab_example import write_slab_example

_MOST_LISTED = 20

data = Application(
    help="Published data sets: list formats, inspect files, build pools, convert; make an example.",
)
app.add_typer(data, name="data")

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Files, or folders of one data set.")
]
FormatName = Annotated[
    str | None,
    typer.Option("--format", help="Take the files for this format, see 'labelwise data list'."),
]


@data.command("list")
def list_formats(as_json: options.AsJson = False) -> None:
    """List the formats that can be read, and the pools that can be built."""
    formats = load_formats().values()
    if as_json:
        record = {
            "formats": [
                {
                    "name": each.name,
                    "title": each.title,
                    "level_of_theory": each.level_of_theory,
                    "citation": each.citation,
                    "licence": each.licence,
                    "url": each.url,
                    "units": each.units,
                    "layout": each.layout,
                    "suffixes": list(each.suffixes),
                    "can_be_written": each.write is not None,
                }
                for each in formats
            ],
            "builds": [
                {
                    "name": each.name,
                    "title": each.title,
                    "summary": each.summary,
                    "protocol": each.source,
                    "query": each.query.describe(),
                }
                for each in BUILDS.values()
            ],
        }
        typer.echo(to_json(record), nl=False)
        return
    for each in formats:
        written = "read and written" if each.write is not None else "read"
        _print(f"{each.name}: {each.title} ({', '.join(each.suffixes)}; {written})")
        _print(f"    {each.layout}")
        _print(f"    {each.units}; {each.level_of_theory}; licence: {each.licence}")
    _print("")
    _print("pools, with 'labelwise data build NAME PATH... --out DIR':")
    for build in BUILDS.values():
        _print(f"{build.name}: {build.summary}")


@data.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A file, or a folder of one data set.")],
    read: Annotated[
        int,
        typer.Option("--read", min=1, help="Structures to read and check, evenly spread."),
    ] = 10_000,
    read_all: Annotated[bool, typer.Option("--all", help="Read and check every one.")] = False,
    format_name: FormatName = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Say what a file holds: how much of what, ranges of labels, level of theory, licence."""
    with console.show_progress(enabled=not (quiet or as_json)) as progress:
        found = inspect_data(
            path,
            n_read=None if read_all else read,
            format_name=format_name,
            progress=progress,
        )
    if as_json:
        typer.echo(to_json(found.describe()), nl=False)
    else:
        _show(found)


@data.command()
def build(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(BUILDS)}.")],
    paths: Paths,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder; each pool goes to a folder in it.")
    ],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides what is drawn.")] = 0,
    size: Annotated[
        int | None,
        typer.Option("--size", min=10, help="Structures in place of the protocol's number."),
    ] = None,
    adsorption: Annotated[
        bool,
        typer.Option(
            "--adsorption",
            help="Energies against slab and gas, where the files give the reference (OC20).",
        ),
    ] = False,
    format_name: FormatName = None,
    force: Annotated[bool, typer.Option("--force", help="Replace other pools there.")] = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Make the papers' pools of published files: extended XYZ and a manifest.

    The same files and seed give the same bytes on every machine.
    """
    is_talkative = not (quiet or as_json)
    with (
        terminated_as_interrupted(),
        console.show_progress(enabled=is_talkative) as progress,
    ):
        pools = build_pools(
            name,
            paths,
            out,
            seed=seed,
            size=size,
            energies="adsorption" if adsorption else "stored",
            format_name=format_name,
            replace=force,
            say=console.say if is_talkative else _say_nothing,
            progress=progress,
        )
    if as_json:
        record = [
            {"folder": str(each.folder), "counts": each.counts, "changes": list(each.changes)}
            for each in pools
        ]
        typer.echo(to_json({"pools": record}), nl=False)
        return
    for each in pools:
        for change in each.changes:
            console.warn(f"{each.folder.name}: {change}")
        counts = ", ".join(f"{n} {role}" for role, n in each.counts.items())
        _print(f"{each.folder}: {counts}")


@data.command()
def export(
    paths: Paths,
    to: Annotated[str, typer.Option("--to", help="Format, see 'labelwise data list'.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file or folder to write.")],
    subset: Annotated[
        list[str] | None, typer.Option("--subset", help="Only this source; may be repeated.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Only this split; may be repeated.")
    ] = None,
    elements: Annotated[
        str | None, typer.Option("--elements", help="Only of these elements: H,C,N,O.")
    ] = None,
    charge: Annotated[
        list[int] | None, typer.Option("--charge", help="Only this charge; may be repeated.")
    ] = None,
    spin: Annotated[
        list[int] | None,
        typer.Option("--spin", help="Only this multiplicity; may be repeated."),
    ] = None,
    max_atoms: Annotated[
        int | None, typer.Option("--max-atoms", min=1, help="Only up to so many atoms.")
    ] = None,
    format_name: FormatName = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write structures, or some of them, in another format."""
    check_name("--to", to, list_writable())
    query = Query(
        subsets=_as_set(subset),
        splits=_as_set(split),
        elements=None if elements is None else _parse_elements(elements),
        charges=_as_set(charge),
        spins=_as_set(spin),
        max_atoms=max_atoms,
    )
    with (
        terminated_as_interrupted(),
        console.show_progress(enabled=not quiet) as progress,
    ):
        n_written = export_data(
            paths,
            out,
            to=to,
            query=query,
            format_name=format_name,
            replace_target=force,
            progress=progress,
        )
    _print(f"{out}: {n_written} structures")


@data.command()
def slabs(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")] = Path("slabs"),
    size: Annotated[int, typer.Option("--size", min=20, help="Structures of the pool.")] = 20_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides everything.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Make an example in the manner of OC20: adsorbates on metal slabs, labelled with EMT.

    20,000 structures take about three minutes. The model 'demo-slabs' knows their elements.
    """
    with (
        terminated_as_interrupted(),
        console.show_progress(enabled=not quiet) as progress,
    ):
        paths = write_slab_example(
            folder,
            n_pool=size,
            seed=seed,
            progress=lambda n_done, n_total: progress("make", n_done, n_total),
            replace=force,
        )
    for path in paths:
        _print(str(path))
    if not quiet:
        console.say(
            f"now try: labelwise select --model demo-slabs --train {folder}/train.extxyz "
            f"--pool {folder}/pool.extxyz -n 100 --group-by adsorbate --out {folder}/batch.extxyz"
        )


def _parse_elements(words: str) -> frozenset[int]:
    symbols = [word.strip() for word in words.split(",")]
    unknown = [symbol for symbol in symbols if atomic_numbers.get(symbol, 0) < 1]
    if unknown:
        raise ArgumentError(f"--elements: {unknown[0]!r} is no element; write for instance H,C,N,O")
    return frozenset(atomic_numbers[symbol] for symbol in symbols)


def _as_set(values: list[Any] | None) -> frozenset[Any] | None:
    return None if not values else frozenset(values)


def _say_nothing(_message: str) -> None:
    """Tell nobody."""


def _print(line: str) -> None:
    console.output.print(line, markup=False, soft_wrap=True)


def _show(found: Inspection) -> None:
    shape = load_formats()[found.format_name]
    _print(f"{found.path}: {shape.title} ({found.format_name})")
    _print(f"{shape.level_of_theory}; licence: {shape.licence}")
    _print(f"cite: {shape.citation}")
    families = f", {found.families} families" if found.families else ""
    _print(f"{found.n_structures} structures{families}; {found.n_read} read and checked")
    for name in ("subsets", "splits", "elements", "charges", "spins"):
        counts = getattr(found, name)
        if counts:
            listed = ", ".join(f"{value} {n}" for value, n in counts.most_common(_MOST_LISTED))
            _print(f"{name}: {listed}{' …' if len(counts) > _MOST_LISTED else ''}")
    if found.n_atoms is not None:
        _print(f"atoms: {found.n_atoms[0]} to {found.n_atoms[1]}")
    if found.n_periodic or found.n_with_fixed:
        _print(f"periodic: {found.n_periodic}; with fixed atoms: {found.n_with_fixed}")
    table = Table("", "smallest", "largest", "unit", box=box.SIMPLE_HEAD)
    units = {"energy": "eV", "energy_per_atom": "eV", "forces_rms": "eV/Å", "forces_max": "eV/Å"}
    for name, (low, high) in found.numbers.items():
        table.add_row(name.replace("_", " "), f"{low:.6g}", f"{high:.6g}", units[name])
    show_table(table)
