"""What ``labelwise campaign`` can be asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.campaign.yaml_files import read_campaign_settings, read_overrides
from labelwise.cli import options
from labelwise.runtime.settings import Setting


def check_campaign(directory: Path, changes: Iterable[str] = ()) -> None:
    """Raise ``LabelwiseError`` if a directory has no settings, or keys of them are wrong."""
    read_campaign_settings(directory)
    changed = read_overrides(changes)
    from labelwise.campaign.config import read_config  # loads ASE and pydantic

    read_config(directory, changed, keys_alone=True)


Directory = Annotated[Path, typer.Argument(help="The campaign's directory.")]


@dataclass(frozen=True, kw_only=True)
class CampaignInitCommand:
    """Begin a campaign: write its configuration, or check the one that is there."""

    directory: Directory
    template: Annotated[bool, Setting("Write a commented campaign.yaml.")] = False

    def check(self) -> None:
        """Raise ``LabelwiseError`` if what is to be checked cannot be read."""
        if not self.template:
            check_campaign(self.directory)


@dataclass(frozen=True, kw_only=True)
class CampaignRunCommand:
    """Go on with a campaign from wherever it stopped.

    Exit code 4: it waits for labels that are made elsewhere, by a person or in a queue that is
    not waited for (--no-wait); run it again when they are there.
    """

    directory: Directory
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            show_default=False,
            help="Settings in place of those in campaign.yaml, such as finetune.max_updates=200; "
            "they are kept in overrides.yaml for the runs to come.",
        ),
    ] = None
    rounds: Annotated[int | None, Setting("Rounds after round 0; else stop.rounds.", ge=0)] = None
    accept_changes: Annotated[
        bool, Setting("Go on although configuration, model or data changed.")
    ] = False
    retry_failed: Annotated[bool, Setting("Let structures that failed be chosen again.")] = False
    break_lock: options.BreakLock = False
    no_wait: Annotated[
        bool, Setting("Submit calculations to the queue and leave; the next run takes the labels.")
    ] = False
    no_report: Annotated[bool, Setting("Do not write report.html after each round.")] = False
    workers: options.Workers = "auto"
    threads: options.Threads = 1
    quiet: options.Quiet = False

    def check(self) -> None:
        """Raise ``LabelwiseError`` if settings cannot be read."""
        check_campaign(self.directory, self.changes or ())


@dataclass(frozen=True, kw_only=True)
class CampaignCancelCommand:
    """Cancel the jobs that a campaign has in a queue; labels that have come are kept.

    The next run submits again what is left. End a run that waits for the jobs first (Ctrl-C).
    """

    directory: Directory
    break_lock: options.BreakLock = False
    quiet: options.Quiet = False

    def check(self) -> None:
        """Raise ``ConfigError`` if settings cannot be read."""
        check_campaign(self.directory)


@dataclass(frozen=True, kw_only=True)
class CampaignStatusCommand:
    """Show rounds, labels, errors, what is waiting, time and cost."""

    directory: Directory
    as_json: options.AsJson = False

    def check(self) -> None:
        """Raise ``ConfigError`` if settings cannot be read."""
        check_campaign(self.directory)


@dataclass(frozen=True, kw_only=True)
class CampaignExportCommand:
    """Write a fine-tuned .model for mace-torch, LAMMPS or OpenMM, and its training set."""

    directory: Directory
    best: Annotated[bool, Setting("The round of lowest validation error.")] = False
    n_round: Annotated[int | None, Setting("This round instead.", flags=("--round",), ge=0)] = None
    out: Annotated[
        Path | None, Setting("Folder; by default 'export' in the campaign.", flags=("--out", "-o"))
    ] = None

    def check(self) -> None:
        """Raise ``ConfigError`` if settings cannot be read."""
        check_campaign(self.directory)
