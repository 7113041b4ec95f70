"""``labelwise data``: published data sets, looked at, made into pools, and converted."""

from __future__ import annotations

from typing import Any

import typer
from ase.data import atomic_numbers

from labelwise.cli import console
from labelwise.cli.commands.data import (
    DataBuildCommand,
    DataExportCommand,
    DataInspectCommand,
    DataListCommand,
)
from labelwise.cli.signals import terminated_as_interrupted
from labelwise.cli.tables import show_rows
from labelwise.errors import ArgumentError, check_name
from labelwise.runtime.provenance import to_json
from labelwise.structures.datasets.building import build_pools
from labelwise.structures.datasets.builds import BUILDS
from labelwise.structures.datasets.exporting import export_data, list_writable
from labelwise.structures.datasets.inspecting import Inspection, inspect_data
from labelwise.structures.datasets.registry import load_formats
from labelwise.structures.datasets.survey import Query

_FACTS = ("name", "title", "level_of_theory", "citation", "licence", "url", "units", "layout")
_MOST_LISTED = 20


def run_data_list(args: DataListCommand) -> None:
    """Run ``labelwise data list``."""
    formats = load_formats().values()
    if args.as_json:
        record = {
            "formats": [
                {
                    **{key: getattr(each, key) for key in _FACTS},
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
        console.tell(f"{each.name}: {each.title} ({', '.join(each.suffixes)}; {written})")
        console.tell(f"    {each.layout}")
        console.tell(f"    {each.units}; {each.level_of_theory}; licence: {each.licence}")
    console.tell("")
    console.tell("pools, with 'labelwise data build NAME PATH... --out DIR':")
    for build in BUILDS.values():
        console.tell(f"{build.name}: {build.summary}")


def run_data_inspect(args: DataInspectCommand) -> None:
    """Run ``labelwise data inspect``."""
    with console.show_progress(enabled=not (args.quiet or args.as_json)) as progress:
        found = inspect_data(
            args.path,
            n_read=None if args.read_all else args.read,
            format_name=args.format_name,
            progress=progress,
        )
    if args.as_json:
        typer.echo(to_json(found.describe()), nl=False)
    else:
        _show(found)


def run_data_build(args: DataBuildCommand) -> None:
    """Run ``labelwise data build``."""
    is_talkative = not (args.quiet or args.as_json)
    with (
        terminated_as_interrupted(),
        console.show_log(enabled=is_talkative),
        console.show_progress(enabled=is_talkative) as progress,
    ):
        pools = build_pools(
            args.name,
            args.paths,
            args.out,
            seed=args.seed,
            size=args.size,
            energies="adsorption" if args.adsorption else "stored",
            format_name=args.format_name,
            replace=args.force,
            progress=progress,
        )
    if args.as_json:
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
        console.tell(f"{each.folder}: {counts}")


def run_data_export(args: DataExportCommand) -> None:
    """Run ``labelwise data export``."""
    check_name("--to", args.to, list_writable())
    query = Query(
        subsets=_as_set(args.subset),
        splits=_as_set(args.split),
        elements=None if args.elements is None else _parse_elements(args.elements),
        charges=_as_set(args.charge),
        spins=_as_set(args.spin),
        max_atoms=args.max_atoms,
    )
    with (
        terminated_as_interrupted(),
        console.show_progress(enabled=not args.quiet) as progress,
    ):
        n_written = export_data(
            args.paths,
            args.out,
            to=args.to,
            query=query,
            format_name=args.format_name,
            replace_target=args.force,
            progress=progress,
        )
    console.tell(f"{args.out}: {n_written} structures")


def _parse_elements(words: str) -> frozenset[int]:
    symbols = [word.strip() for word in words.split(",")]
    unknown = [symbol for symbol in symbols if atomic_numbers.get(symbol, 0) < 1]
    if unknown:
        raise ArgumentError(f"--elements: {unknown[0]!r} is no element; write for instance H,C,N,O")
    return frozenset(atomic_numbers[symbol] for symbol in symbols)


def _as_set(values: list[Any] | None) -> frozenset[Any] | None:
    return None if not values else frozenset(values)


def _show(found: Inspection) -> None:
    shape = load_formats()[found.format_name]
    console.tell(f"{found.path}: {shape.title} ({found.format_name})")
    console.tell(f"{shape.level_of_theory}; licence: {shape.licence}")
    console.tell(f"cite: {shape.citation}")
    families = f", {found.families} families" if found.families else ""
    console.tell(f"{found.n_structures} structures{families}; {found.n_read} read and checked")
    for name in ("subsets", "splits", "elements", "charges", "spins"):
        counts = getattr(found, name)
        if counts:
            listed = ", ".join(f"{value} {n}" for value, n in counts.most_common(_MOST_LISTED))
            console.tell(f"{name}: {listed}{' …' if len(counts) > _MOST_LISTED else ''}")
    if found.n_atoms is not None:
        console.tell(f"atoms: {found.n_atoms[0]} to {found.n_atoms[1]}")
    if found.n_periodic or found.n_with_fixed:
        console.tell(f"periodic: {found.n_periodic}; with fixed atoms: {found.n_with_fixed}")
    units = {"energy": "eV", "energy_per_atom": "eV", "forces_rms": "eV/Å", "forces_max": "eV/Å"}
    rows = [
        (name.replace("_", " "), f"{low:.6g}", f"{high:.6g}", units[name])
        for name, (low, high) in found.numbers.items()
    ]
    show_rows(("", "smallest", "largest", "unit"), rows, n_words=4)
