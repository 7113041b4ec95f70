"""``labelwise calibrate``: does a kernel know how large the model's errors are?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from labelwise.cli import console, options
from labelwise.cli.app import app
from labelwise.cli.data_sets import read_usable
from labelwise.cli.tables import show_table
from labelwise.errors import MissingDependencyError
from labelwise.features.representations import RepresentationOptions
from labelwise.potentials import Potential, load_potential
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.record import describe_potential
from labelwise.selection.rules.base import DEFAULT_REGULARISATION
from labelwise.structures.labels import DEFAULT_ENERGY_KEY
from labelwise.studies.diagnostics.calibration import calibrate as run_calibration
from labelwise.studies.diagnostics.calibration_pictures import draw_prefixes, draw_reliability
from labelwise.studies.diagnostics.calibration_report import (
    PAGE,
    TABLE,
    as_plain_data,
    describe,
    format_line,
    list_warnings,
    name_columns,
    write_page,
    write_table,
)
from labelwise.studies.diagnostics.calibration_results import (
    DEFAULT_MAX_LABELS,
    PAPER_KERNELS,
    Calibration,
    CalibrationSets,
    CalibrationSettings,
)

SUMMARY = "calibration.json"


@app.command()
def calibrate(
    pool: Annotated[
        list[str],
        typer.Option("--pool", metavar="FILE...", help="Structures with energies, to learn from."),
    ],
    valid: Annotated[
        list[str],
        typer.Option(
            "--valid", metavar="FILE...", help="With energies; they choose how many labels."
        ),
    ],
    test: Annotated[
        list[str],
        typer.Option("--test", metavar="FILE...", help="With energies; what is reported."),
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="As for 'labelwise select'.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder; a calibration that was interrupted goes on there."
        ),
    ],
    train: Annotated[
        list[str] | None,
        typer.Option(
            "--train",
            metavar="FILE...",
            help="The initial set, with energies, not in the pool; by default drawn from it.",
        ),
    ] = None,
    kernels: Annotated[
        str,
        typer.Option(
            "--kernels",
            help="Representations to compare, with commas between.",
            show_default=", ".join(PAPER_KERNELS),
            rich_help_panel=options.CHOICE,
        ),
    ] = ",".join(PAPER_KERNELS),
    n_initial: Annotated[
        int, typer.Option("--n-initial", min=2, help="Structures drawn to begin with.")
    ] = 10,
    step: Annotated[int, typer.Option("--step", min=1, help="Labels between two fits.")] = 5,
    max_labels: Annotated[
        int | None,
        typer.Option(
            "--max-labels",
            min=2,
            help="Labels of the last fit.",
            show_default=f"{DEFAULT_MAX_LABELS}, or all",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Initial sets.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything that is drawn.")] = 0,
    references: Annotated[
        str,
        typer.Option(
            "--references",
            metavar="prefix|initial|checkpoint",
            help="Fit atomic reference energies to the labels of each prefix or of the initial "
            "set, or keep the checkpoint's, for labels of its own level of theory.",
            rich_help_panel=options.CHOICE,
        ),
    ] = "prefix",
    regularisation: Annotated[
        float,
        typer.Option(
            "--regularisation",
            help="λ of acquisition and Gaussian process.",
            rich_help_panel=options.CHOICE,
        ),
    ] = DEFAULT_REGULARISATION,
    normalise: Annotated[
        options.Normalisation,
        typer.Option(
            "--normalise",
            help="Divide each structure's features by their own norm, or all by one number.",
            rich_help_panel=options.CHOICE,
        ),
    ] = options.Normalisation.cosine,
    per_atom: Annotated[
        bool,
        typer.Option(
            "--per-atom", help="Energies per atom, not total.", rich_help_panel=options.CHOICE
        ),
    ] = False,
    with_noise: Annotated[
        bool,
        typer.Option(
            "--with-noise",
            help="Count λ as noise of the labels in the predicted variance.",
            rich_help_panel=options.CHOICE,
        ),
    ] = False,
    n_bins: Annotated[
        int,
        typer.Option("--bins", min=1, help="Of the ENCE.", rich_help_panel=options.CHOICE),
    ] = 10,
    parameters: options.ParameterBlock = options.Parameters.embedding,
    sketch_dim: options.SketchDim = None,
    reduction: options.Reduction = "fields",
    probes: options.Probes = options.DEFAULT_PROBES,
    energy_weight: options.EnergyWeight = 0.5,
    energy_key: options.EnergyKey = DEFAULT_ENERGY_KEY,
    head: options.Head = None,
    trust_model: options.Trust = False,
    device: options.OnDevice = "auto",
    dtype: options.InPrecision = None,
    batch_atoms: options.BatchAtoms = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Compute anew what --out has of other settings.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
) -> None:
    """Hold each kernel's uncertainty against the pretrained model's errors in energy.

    A Gaussian process with each kernel learns what the model leaves unexplained, from labels
    in the order in which posterior variance would buy them. Writes calibration.csv, .md and
    .json, reliability.png and .svg, prefixes.png and .svg, and a JSON file for each finished
    kernel.
    """
    settings = CalibrationSettings(
        kernels=tuple(word.strip() for word in kernels.split(",") if word.strip()),
        n_initial=n_initial,
        step=step,
        max_labels=max_labels,
        n_repeats=repeats,
        regularisation=regularisation,
        normalise=normalise.value,
        references=references,
        per_atom=per_atom,
        with_noise=with_noise,
        n_bins=n_bins,
        seed=seed,
        energy_key=energy_key,
        options=RepresentationOptions(
            parameters=parameters.value,
            sketch_dim=sketch_dim,
            seed=seed,
            reduction=reduction,
            n_probes=options.parse_probes(probes),
            energy_weight=energy_weight,
        ),
    )
    files = {"pool": pool, "train": train or [], "valid": valid, "test": test}
    is_talkative = not (quiet or as_json)
    with console.show_status("loading the model", enabled=is_talkative):
        potential = load_potential(
            model,
            device=device,
            dtype=None if dtype is None else dtype.value,
            head=head,
            trust=trust_model,
        )
    sets = _read(files, potential, enabled=not quiet)
    with console.show_progress(enabled=is_talkative) as progress:
        calibration = run_calibration(
            potential,
            sets,
            settings,
            folder=out,
            force=force,
            batch_atoms=batch_atoms,
            progress=progress,
        )
    summary = _summarise(calibration, potential, {**files, "model": model})
    _write(out, calibration, summary, quiet=quiet)
    if as_json:
        typer.echo(summary, nl=False)
    elif is_talkative:
        _show(calibration, out)


def _read(files: dict[str, list[str]], potential: Potential, *, enabled: bool) -> CalibrationSets:
    frames = {
        role: read_usable(names, potential, option=f"--{role}", enabled=enabled) if names else []
        for role, names in files.items()
    }
    return CalibrationSets(
        **{role: [frame.atoms for frame in found] for role, found in frames.items()},
        sources={role: [frame.source for frame in found] for role, found in frames.items()},
    )


def _summarise(calibration: Calibration, potential: Potential, inputs: dict[str, Any]) -> str:
    return to_json(
        {
            "format_version": 1,
            "inputs": inputs,
            "model": describe_potential(potential),
            "versions": package_versions(),
            **as_plain_data(calibration),
        }
    )


def _write(out: Path, calibration: Calibration, summary: str, *, quiet: bool) -> None:
    write_table(out / TABLE, calibration)
    write_page(out / PAGE, calibration)
    write_text(out / SUMMARY, summary)
    try:
        draw_reliability(out, calibration)
        draw_prefixes(out, calibration)
    except MissingDependencyError as error:
        if not quiet:
            console.say(f"no pictures: {error}")


def _show(calibration: Calibration, out: Path) -> None:
    short = len(calibration.kernels[0].replays) > 1
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for place, name in enumerate(name_columns(short=short)):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for kernel in calibration.kernels:
        table.add_row(*format_line(kernel, short=short))
    show_table(table)
    for line in describe(calibration, short=short):
        console.output.print(line, markup=False)
    for line in list_warnings(calibration):
        console.warn(line)
    if calibration.resumed:
        words = f"finished by an earlier run: {', '.join(calibration.resumed)}"
        console.output.print(words, markup=False, soft_wrap=True)
    console.output.print(f"results: {out}", markup=False, soft_wrap=True)
