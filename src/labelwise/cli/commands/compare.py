"""What ``labelwise compare`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from labelwise.campaign.yaml_reading import read_overrides
from labelwise.cli import options
from labelwise.finetuning.recipe import EnergyErrors
from labelwise.potentials.spec import ModelSpec
from labelwise.structures.label_keys import LabelKeys
from labelwise.studies.comparison.protocols import PRESETS, SHIFTS
from labelwise.studies.comparison.study_file import read_study_settings

_PRESET, _PART, _SCALE, _ERRORS = "Preset", "Part of a study", "Scale", "Errors"


@dataclass(frozen=True, kw_only=True)
class CompareCommand:
    """Run every method on every pool with every seed, and write the papers' tables.

    Each is a campaign in a folder of its own. Killed or interrupted, the same command goes
    on where it stopped. Writes results.md, a CSV for each table, learning curves, and
    report.html, a page that shows it all.
    """

    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY] [KEY=VALUE]...",
            help="study.yaml, or a folder that has one; and settings in place of those in it, such "
            "as finetune.max_updates=200 or seeds=[0,1].",
            show_default=False,
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help=f"A protocol of the papers in place of STUDY: {', '.join(PRESETS)}.",
            rich_help_panel=_PRESET,
        ),
    ] = None
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="PATH...",
            help="Labelled structures of a preset: files, or folders of pool, valid and "
            "test.extxyz; by default the embedded reactions. Or published files, see 'labelwise "
            "data list'.",
            rich_help_panel=_PRESET,
        ),
    ] = None
    model: Annotated[ModelSpec, options.Take(defaults={"path": "demo"})]
    family_key: Annotated[
        str,
        typer.Option("--family-key", help="Info key of the reaction.", rich_help_panel=_PRESET),
    ] = "reaction"
    order_key: Annotated[
        str,
        typer.Option(
            "--order-key", help="Info key of the place along the path.", rich_help_panel=_PRESET
        ),
    ] = "frame"
    shift: Annotated[
        str,
        typer.Option(
            "--shift",
            callback=options.words_of("shift", SHIFTS),
            help="By what pool-bias shifts its pools: family, path, energy.",
            rich_help_panel=_PRESET,
        ),
    ] = "family,path,energy"
    strength: Annotated[
        str,
        typer.Option(
            "--strength",
            help="How strongly pool-bias shifts them; several with commas between.",
            rich_help_panel=_PRESET,
        ),
    ] = "3"
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            min=10,
            help="Structures of a published data set in place of the protocol's number.",
            rich_help_panel=_PRESET,
        ),
    ] = None
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="These only: a,b,c.", rich_help_panel=_PART),
    ] = None
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", help="These only: 0,1.", rich_help_panel=_PART),
    ] = None
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, help="Rounds after round 0.", rich_help_panel=_PART),
    ] = None
    updates: Annotated[
        int | None,
        typer.Option(
            "--updates", min=1, help="Most updates of a fine-tuning.", rich_help_panel=_SCALE
        ),
    ] = None
    thin: Annotated[
        int,
        typer.Option(
            "--thin", min=1, help="Of each pool every K-th structure.", rich_help_panel=_SCALE
        ),
    ] = 1
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile updates for this machine, once; needs a C++ compiler.",
            rich_help_panel=_SCALE,
        ),
    ] = None
    split_key: Annotated[
        str | None,
        typer.Option(
            "--split-key",
            help="Info key of a test structure's split; tables of each split as well.",
            rich_help_panel=_ERRORS,
        ),
    ] = None
    exclude_fixed: Annotated[
        bool,
        typer.Option(
            "--exclude-fixed",
            help="Leave the forces of fixed atoms out of errors.",
            rich_help_panel=_ERRORS,
        ),
    ] = False
    energy_errors: Annotated[
        str | None,
        typer.Option(
            "--energy-errors",
            callback=options.words_of("energy_errors", get_args(EnergyErrors)),
            help="total, or per-atom for structures of different sizes.",
            rich_help_panel=_ERRORS,
        ),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="Scale the study to this machine and wall time: 45m, 2h, 1h30m.",
            rich_help_panel=_SCALE,
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of campaigns and results; by default the study's own.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            "-j",
            min=1,
            help="Campaigns at once; by default one a core, and one on a GPU.",
            rich_help_panel=options.MACHINE,
        ),
    ] = None
    threads: Annotated[
        int,
        typer.Option("--threads", min=1, help="Threads of each.", rich_help_panel=options.MACHINE),
    ] = 1
    tables_only: Annotated[
        bool,
        typer.Option(
            "--tables-only",
            help="Run nothing; write tables and curves of what is there.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False
    no_report: Annotated[
        bool,
        typer.Option(
            "--no-report", help="Do not write report.html.", rich_help_panel=options.OUTPUT
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be run, and stop.", rich_help_panel=options.OUTPUT
        ),
    ] = False
    labels: LabelKeys
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Begin campaigns anew that were begun with other settings.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False

    @property
    def study(self) -> Path | None:
        """The study; None for a preset."""
        first = self.words[0] if self.words else "="
        return Path(first) if "=" not in first or Path(first).exists() else None

    @property
    def changes(self) -> dict[str, Any]:
        """Settings in place of the study's, by dotted key.

        Raises:
            ArgumentError: A word is no setting.
        """
        words = [] if self.words is None else self.words
        return read_overrides(words if self.study is None else words[1:])

    def check(self) -> None:
        """Raise ``LabelwiseError`` if settings cannot be read."""
        _ = self.changes
        if self.study is not None and self.preset is None:
            read_study_settings(self.study)
