"""``labelwise store``: what a feature store holds, and whether it is sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import console, options
from labelwise.cli.app import EXIT_ERROR, app
from labelwise.feature_store import FeatureStore
from labelwise.memory import format_bytes
from labelwise.summary import to_json


@app.command()
def store(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that 'select --store' has made.")
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every chunk and compare checksums.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Verify, and set damaged chunks aside: the next 'select --store' computes their "
            "structures again.",
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what a feature store holds; fails if --verify finds damage."""
    said: list[str] = []
    features = FeatureStore.open(folder, say=said.append)
    for message in said:
        console.warn(message)
    damages = features.verify() if verify or repair else []
    if repair:
        for damage in damages:
            features.set_aside(damage.number)
    record = {**features.describe(), "damage": {d.number: d.reason for d in damages}}
    if as_json:
        typer.echo(to_json(record), nl=False)
    else:
        _show(features, verified=verify or repair)
    for damage in damages:
        done = "; it was set aside" if repair else ""
        console.warn(f"chunk {damage.number} is damaged: {damage.reason}{done}")
    if damages and not repair:
        raise typer.Exit(EXIT_ERROR)


def _show(features: FeatureStore, *, verified: bool) -> None:
    identity = features.identity
    record = features.describe()
    used = ", ".join(f"{name} {value}" for name, value in identity.options.items())
    representation = f"{identity.representation} ({used})" if used else identity.representation
    lines = [
        f"rows:           {len(features)} of {identity.width} features, {identity.storage_dtype}",
        f"chunks:         {len(features.chunk_numbers)}, {format_bytes(record['bytes'])}",
        f"representation: {representation}",
        f"model:          {identity.model}",
    ]
    if verified:
        lines.append("every chunk was read and compared with its checksum")
    for line in lines:
        console.output.print(line, markup=False, soft_wrap=True)
