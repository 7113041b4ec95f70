"""What ``labelwise compare`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from labelwise.campaign.yaml_files import read_overrides
from labelwise.cli import options
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import MACHINE, OUTPUT, Setting
from labelwise.structures.label_keys import LabelKeys
from labelwise.studies.comparison.protocols import PRESETS, SHIFTS
from labelwise.studies.comparison.study_file import read_study_settings

_PRESET, _PART, _SCALE = "Preset", "Part of a study", "Scale"


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
        Setting(
            f"A protocol of the papers in place of STUDY: {', '.join(PRESETS)}.", panel=_PRESET
        ),
    ] = None
    data: Annotated[
        list[str] | None,
        Setting(
            "Labelled structures of a preset: files, or folders of pool, valid and "
            "test.extxyz; by default the embedded reactions. Or published files, see 'labelwise "
            "data list'.",
            metavar="PATH...",
            panel=_PRESET,
        ),
    ] = None
    model: Annotated[ModelSpec, options.Take(defaults={"path": "demo"})]
    group_by: Annotated[str, Setting("Info key of the reaction.", panel=_PRESET)] = "reaction"
    order_by: Annotated[str, Setting("Info key of the place along the path.", panel=_PRESET)] = (
        "frame"
    )
    shift: Annotated[
        tuple[str, ...],
        Setting(
            "By what pool-bias shifts its pools: family, path, energy.",
            choices=SHIFTS,
            metavar="TEXT",
            panel=_PRESET,
        ),
    ] = SHIFTS
    strength: Annotated[
        tuple[float, ...],
        Setting("How strongly pool-bias shifts them; several with commas between.", panel=_PRESET),
    ] = (3.0,)
    size: Annotated[
        int | None,
        Setting(
            "Structures of a published data set in place of the protocol's number.",
            ge=10,
            panel=_PRESET,
        ),
    ] = None
    methods: Annotated[tuple[str, ...] | None, Setting("These only: a,b,c.", panel=_PART)] = None
    seeds: Annotated[tuple[int, ...] | None, Setting("These only: 0,1.", panel=_PART)] = None
    rounds: Annotated[int | None, Setting("Rounds after round 0.", ge=1, panel=_PART)] = None
    max_updates: Annotated[
        int | None,
        Setting(
            "Most updates of a fine-tuning, validated less often in proportion.",
            aliases=("--updates",),
            ge=1,
            panel=_SCALE,
        ),
    ] = None
    thin: Annotated[int, Setting("Of each pool every K-th structure.", ge=1, panel=_SCALE)] = 1
    budget: Annotated[
        str | None,
        Setting(
            "Scale the study to this machine and wall time: 45m, 2h, 1h30m.",
            metavar="TIME",
            panel=_SCALE,
        ),
    ] = None
    out: Annotated[
        Path | None,
        Setting(
            "Folder of campaigns and results; by default the study's own.",
            flags=("--out", "-o"),
            panel=OUTPUT,
        ),
    ] = None
    workers: Annotated[
        str,
        Setting(
            "Campaigns at once. auto: one a core, and one on a GPU.",
            flags=("--workers", "-j"),
            metavar="N|auto",
            panel=MACHINE,
        ),
    ] = "auto"
    threads: options.Threads = 1
    tables_only: Annotated[
        bool,
        Setting("Run nothing; write tables and curves of what is there.", panel=OUTPUT),
    ] = False
    no_report: Annotated[bool, Setting("Do not write report.html.", panel=OUTPUT)] = False
    dry_run: Annotated[bool, Setting("Say what would be run, and stop.", panel=OUTPUT)] = False
    labels: LabelKeys
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: Annotated[
        bool,
        Setting("Begin campaigns anew that were begun with other settings.", panel=OUTPUT),
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
