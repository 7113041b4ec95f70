"""``labelwise represent``: features of structures to a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

import typer

from labelwise.cli import console
from labelwise.cli.commands.represent import RepresentCommand
from labelwise.cli.scale import check_store, device_here, open_engine
from labelwise.errors import ArgumentError, WriteError
from labelwise.features.feature_file import write_features
from labelwise.features.fill import ExtractionCounts, Filler
from labelwise.features.frames import FrameTable
from labelwise.features.representations import (
    feature_blocks,
    make_representation,
)
from labelwise.features.store import FeatureStore
from labelwise.potentials.loading import load_model
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.record import describe_potential
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.structures import iter_unscreened
from labelwise.structures.reading import expand_specs


def run_represent(args: RepresentCommand) -> None:
    """Run ``labelwise represent``."""
    check_store(args.storing, args.engine)
    store = args.storing.store
    if store is not None and args.out is not None:
        raise ArgumentError("features go to --store or to --out: leave one of them out")
    out = Path("features.npz") if args.out is None else args.out
    if out.suffix != ".npz":
        raise ArgumentError(f"--out must end in .npz, got {out}")
    if store is None and out.exists() and not args.force:
        raise WriteError(f"{out} exists; choose another --out, or replace it with --force")
    selection = args.selection
    chosen = make_representation(selection.representation, selection.options)
    if args.model.path is None and chosen.needs_model:
        raise ArgumentError(selection.explain_need_of_model())
    potential = load_model(args.model, device=device_here(args.model.device, args.engine.ray))
    if store is not None:
        settings = AcquisitionSettings(**asdict(selection), n_select=1)
        with (
            open_engine(args.engine, args.model.device, None) as engine,
            console.show_progress(enabled=not (args.quiet or args.as_json)) as progress,
        ):
            features = open_store(
                store,
                settings,
                potential,
                storage_dtype=args.storing.store_dtype,
                say=console.warn,
            )
            filler = Filler(
                settings.make_recipe(),
                features,
                potential,
                engine=engine,
                load=None if args.engine.ray is None else partial(load_model, args.model),
                progress=progress,
            )
            frames = filler.fill_from_files(args.pool, "pool")
        _report_store(features, frames, filler.counts, quiet=args.quiet, as_json=args.as_json)
        return
    metadata = {
        "representation": selection.representation,
        **asdict(selection.options),
        "blocks": [asdict(block) for block in feature_blocks(chosen, potential)],
        "model": None if potential is None else describe_potential(potential),
        "versions": package_versions(),
        "inputs": [_describe_input(part.path, part.frames) for part in expand_specs(args.pool)],
    }
    remarks: Counter[str] = Counter()
    with (
        open_engine(args.engine, args.model.device, None) as engine,
        console.show_progress(enabled=not (args.quiet or args.as_json)) as progress,
    ):
        n_rows, screened = write_features(
            out,
            iter_unscreened(args.pool),
            potential,
            metadata=metadata,
            representation=chosen,
            batch_atoms=selection.batch_atoms,
            max_atoms=selection.max_atoms,
            remarks=remarks,
            engine=engine,
            progress=progress,
        )
    if args.as_json:
        left_out = [f"{item.source}: {item.reason} ({item.detail})" for item in screened]
        record = {
            **metadata,
            "out": str(out),
            "rows": n_rows,
            "screened": left_out,
            "remarks": dict(remarks),
        }
        typer.echo(to_json(record), nl=False)
    elif not args.quiet:
        for item in screened:
            console.say(f"left out {item.source}: {item.reason} ({item.detail})")
        for remark, n in remarks.items():
            console.say(f"{n} structures: {remark}")
        console.output.print(f"{n_rows} rows in {out}", markup=False, soft_wrap=True)


def _report_store(
    features: FeatureStore,
    frames: FrameTable,
    counts: ExtractionCounts,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    left_out = [
        f"{item.source}: {item.reason} ({item.detail})" for item in frames.list_screened("pool")
    ]
    if as_json:
        record = {
            **features.describe(),
            "frames": len(frames),
            "rows_computed": counts.n_computed,
            "screened": left_out,
        }
        typer.echo(to_json(record), nl=False)
    elif not quiet:
        for item in left_out:
            console.say(f"left out {item}")
        line = f"{len(features)} rows in {features.path}, {counts.n_computed} of them computed now"
        console.output.print(line, markup=False, soft_wrap=True)


def _describe_input(path: Path, frames: slice) -> list[object]:
    """Return what tells whether an input is still the same file."""
    status = path.stat()
    return [str(path), str(frames), status.st_size, status.st_mtime_ns]
