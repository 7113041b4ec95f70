"""``labelwise represent``: features of structures to a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import console, options
from labelwise.cli.app import app
from labelwise.cli.scale import ModelOptions, device_here, open_engine, read_store_settings
from labelwise.errors import ArgumentError, WriteError
from labelwise.features.extraction import ExtractionCounts, Offered
from labelwise.features.feature_file import write_features
from labelwise.features.representations import (
    ModelRepresentation,
    RepresentationOptions,
    feature_blocks,
    make_representation,
)
from labelwise.features.store import FeatureStore
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.record import describe_potential
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.stored import fill_store
from labelwise.structures import iter_unscreened
from labelwise.structures.reading import expand_specs


@app.command()
def represent(
    pool: options.Pool,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where the features go, as NumPy .npz; by default features.npz, unless there is "
            "a --store.",
        ),
    ] = None,
    model: options.Model = None,
    head: options.Head = None,
    trust_model: options.Trust = False,
    representation: options.Representation = "ntk-e",
    parameters: options.ParameterBlock = options.Parameters.embedding,
    sketch_dim: options.SketchDim = None,
    reduction: options.Reduction = "fields",
    probes: options.Probes = options.DEFAULT_PROBES,
    energy_weight: options.EnergyWeight = 0.5,
    seed: options.Seed = 0,
    device: options.OnDevice = "auto",
    dtype: options.InPrecision = None,
    batch_atoms: options.BatchAtoms = None,
    max_atoms: options.MaxAtoms = None,
    store: options.Store = None,
    store_dtype: options.StoreDtype = options.StorageType.float32,
    workers: options.Workers = 0,
    ray: options.Ray = None,
    ray_workers: options.RayWorkers = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    force: options.Force = False,
) -> None:
    """Compute the features of structures; a killed run goes on where it was.

    With --store they go into a folder from which 'labelwise select --store' chooses, and what is
    there is not computed again. Else into a file, which holds features (n, d), not normalised,
    index, file and frame of each row, and how they were made; of soap also the names of the
    columns, those of the pairs of elements that were found.
    """
    keeping = read_store_settings(store, None, store_dtype, workers, ray)
    if keeping is not None and out is not None:
        raise ArgumentError("features go to --store or to --out: leave one of them out")
    out = Path("features.npz") if out is None else out
    if out.suffix != ".npz":
        raise ArgumentError(f"--out must end in .npz, got {out}")
    if keeping is None and out.exists() and not force:
        raise WriteError(f"{out} exists; choose another --out, or replace it with --force")
    representation_options = RepresentationOptions(
        parameters=parameters.value,
        sketch_dim=sketch_dim,
        seed=seed,
        reduction=reduction,
        n_probes=options.parse_probes(probes),
        energy_weight=energy_weight,
    )
    chosen = make_representation(representation, representation_options)
    if model is None and isinstance(chosen, ModelRepresentation):
        raise ArgumentError(f"representation {representation!r} needs a model: give --model")
    chosen_model = ModelOptions(model, device, dtype, head, trust_model)
    potential = chosen_model.load(device_here(device, ray))
    if keeping is not None:
        settings = AcquisitionSettings(
            n_select=1,
            representation=representation,
            **asdict(representation_options),
            batch_atoms=batch_atoms,
            max_atoms=max_atoms,
        )
        with (
            open_engine(ray, ray_workers, device) as engine,
            console.show_progress(enabled=not (quiet or as_json)) as progress,
        ):
            features, offered, counts = fill_store(
                pool,
                settings,
                keeping,
                potential=potential,
                engine=engine,
                load=chosen_model.load,
                progress=progress,
                say=console.warn,
            )
        _report_store(features, offered, counts, quiet=quiet, as_json=as_json)
        return
    metadata = {
        "representation": representation,
        **asdict(representation_options),
        "blocks": [asdict(block) for block in feature_blocks(chosen, potential)],
        "model": None if potential is None else describe_potential(potential),
        "versions": package_versions(),
        "inputs": [_describe_input(part.path, part.frames) for part in expand_specs(pool)],
    }
    remarks: Counter[str] = Counter()
    with console.show_progress(enabled=not (quiet or as_json)) as progress:
        n_rows, screened = write_features(
            out,
            iter_unscreened(pool),
            potential,
            metadata=metadata,
            representation=chosen,
            batch_atoms=batch_atoms,
            max_atoms=max_atoms,
            remarks=remarks,
            progress=progress,
        )
    if as_json:
        left_out = [f"{item.source}: {item.reason} ({item.detail})" for item in screened]
        record = {
            **metadata,
            "out": str(out),
            "rows": n_rows,
            "screened": left_out,
            "remarks": dict(remarks),
        }
        typer.echo(to_json(record), nl=False)
    elif not quiet:
        for item in screened:
            console.say(f"left out {item.source}: {item.reason} ({item.detail})")
        for remark, n in remarks.items():
            console.say(f"{n} structures: {remark}")
        console.output.print(f"{n_rows} rows in {out}", markup=False, soft_wrap=True)


def _report_store(
    features: FeatureStore,
    offered: Offered,
    counts: ExtractionCounts,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    if as_json:
        reasons = {place: f"{why[0]} ({why[1]})" for place, why in offered.set_aside.items()}
        left_out = [f"{offered.source(p)}: {reason}" for p, reason in reasons.items()]
        record = {
            **features.describe(),
            "frames": len(offered),
            "rows_computed": counts.n_computed,
            "screened": left_out,
        }
        typer.echo(to_json(record), nl=False)
    elif not quiet:
        for place, (reason, detail) in offered.set_aside.items():
            console.say(f"left out {offered.source(place)}: {reason} ({detail})")
        line = f"{len(features)} rows in {features.path}, {counts.n_computed} of them computed now"
        console.output.print(line, markup=False, soft_wrap=True)


def _describe_input(path: Path, frames: slice) -> list[object]:
    """Return what tells whether an input is still the same file."""
    status = path.stat()
    return [str(path), str(frames), status.st_size, status.st_mtime_ns]
