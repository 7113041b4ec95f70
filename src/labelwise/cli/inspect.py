"""``labelwise models``, ``doctor`` and ``demo``: what is there, and does it work."""

from __future__ import annotations

import io
from dataclasses import asdict

import typer
from ase.io import read
from rich.markup import escape

from labelwise.cli import console, diagnosis
from labelwise.cli.app import EXIT_ERROR
from labelwise.cli.commands.inspect import DemoCommand, DoctorCommand, ModelsCommand
from labelwise.cli.tables import show_rows
from labelwise.potentials.loading import list_families, list_models
from labelwise.runtime.provenance import to_json
from labelwise.structures.demo_data import demo_file_content, write_demo_files


def run_models(args: ModelsCommand) -> None:
    """Run ``labelwise models``."""
    families = list_families()
    if args.as_json:
        described = [
            {"name": each.name, "installed": each.is_installed, "extra": each.extra}
            for each in families
        ]
        known = [asdict(model) for model in list_models()]
        typer.echo(to_json({"families": described, "models": known}), nl=False)
        return
    for family in families:
        models = family.known_models()
        console.tell(f"{family.name}: {diagnosis.describe_installation(family)}")
        if models:
            rows = [(model.name, model.source, model.licence, model.note) for model in models]
            show_rows(("name", "from", "licence", "note"), rows, n_words=4)
    console.say("Any file of these families can be given by its path, or as FAMILY:FILE.")


def run_doctor(args: DoctorCommand) -> None:
    """Run ``labelwise doctor``."""
    report = diagnosis.diagnose(args.device)
    if args.as_json:
        typer.echo(to_json(report.as_dict()), nl=False)
    else:
        for name, value in {**report.versions, **report.devices}.items():
            console.tell(f"{name:<12} {value}")
        for check in report.checks:
            mark = "[green]ok[/]" if check.passed else "[red]FAILED[/]"
            console.output.print(f"{mark:<12} {check.name}: {escape(check.detail)}")
        for name, text in report.absent.items():
            console.tell(f"{'-':<12} {name}: {text}")
    if not all(check.passed for check in report.checks):
        raise typer.Exit(EXIT_ERROR)


def run_demo(args: DemoCommand) -> None:
    """Run ``labelwise demo``."""
    for path in write_demo_files(args.folder, replace=args.force):
        n_frames = len(read(io.StringIO(demo_file_content(path.name).decode()), ":", "extxyz"))
        console.tell(f"{path}: {n_frames} structures")
    console.say(
        f"now try: labelwise select --model demo --train {args.folder}/train.extxyz "
        f"--pool {args.folder}/pool.extxyz -n 25 --group-by reaction "
        f"--out {args.folder}/batch.extxyz"
    )
