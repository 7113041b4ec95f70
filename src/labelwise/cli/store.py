"""``labelwise store``: what a feature store holds, and whether it is sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import console, options
from labelwise.cli.app import EXIT_ERROR, app
from labelwise.features.store import FeatureStore, verify_store
from labelwise.runtime.memory import format_bytes
from labelwise.runtime.provenance import to_json


@app.command()
def store(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that 'select --store' has made.")
    ],
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read everything and compare checksums; nothing is changed."),
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
    damages = verify_store(folder) if folder.is_dir() and (verify or repair) else []
    for damage in damages:
        console.warn(f"{damage.name} is damaged: {damage.reason}")
    said: list[str] = []
    features = FeatureStore.open(folder, mend=repair, say=said.append)
    if not (verify or repair):
        for message in said:
            console.warn(message)
    if repair and damages:
        for damage in damages:
            done = features.mend(damage)
            console.say(f"{damage.name}: {done or 'remove it, or make it readable'}")
        damages = verify_store(folder)
    record = {**features.describe(), "damage": {each.name: each.reason for each in damages}}
    if as_json:
        typer.echo(to_json(record), nl=False)
    else:
        _show(features, is_sound=(verify or repair) and not damages)
    if damages:
        raise typer.Exit(EXIT_ERROR)


def _show(features: FeatureStore, *, is_sound: bool) -> None:
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
    if is_sound:
        lines.append("everything was read and is as it was written")
    for line in lines:
        console.output.print(line, markup=False, soft_wrap=True)
