"""``labelwise store``: what a feature store holds, and whether it is sound."""

from __future__ import annotations

import typer

from labelwise.cli import console
from labelwise.cli.app import EXIT_ERROR
from labelwise.cli.commands.store import StoreCommand
from labelwise.features.store import FeatureStore, verify_store
from labelwise.runtime.memory import format_bytes
from labelwise.runtime.provenance import to_json


def run_store(args: StoreCommand) -> None:
    """Run ``labelwise store``."""
    damages = (
        verify_store(args.folder) if args.folder.is_dir() and (args.verify or args.repair) else []
    )
    for damage in damages:
        console.warn(f"{damage.name} is damaged: {damage.reason}")
    said: list[str] = []
    features = FeatureStore.open(args.folder, mend=args.repair, say=said.append)
    if not (args.verify or args.repair):
        for message in said:
            console.warn(message)
    if args.repair and damages:
        for damage in damages:
            done = features.mend(damage)
            console.say(f"{damage.name}: {done or 'remove it, or make it readable'}")
        damages = verify_store(args.folder)
    record = {**features.describe(), "damage": {each.name: each.reason for each in damages}}
    if args.as_json:
        typer.echo(to_json(record), nl=False)
    else:
        _show(features, is_sound=(args.verify or args.repair) and not damages)
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
