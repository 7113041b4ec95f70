"""What ``labelwise campaign`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options

Directory = Annotated[Path, typer.Argument(help="The campaign's directory.")]


@dataclass(frozen=True, kw_only=True)
class CampaignInitCommand:
    """Begin a campaign: write its configuration, or check the one that is there."""

    directory: Directory
    template: Annotated[
        bool, typer.Option("--template", help="Write a commented campaign.yaml.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class CampaignRunCommand:
    """Go on with a campaign from wherever it stopped.

    Exit code 4: it waits for labels that are made elsewhere; run it again when they are
    there.
    """

    directory: Directory
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=0, help="Rounds after round 0; else stop.rounds."),
    ] = None
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="Go on although configuration, model or data changed."
        ),
    ] = False
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Let structures that failed be chosen again."),
    ] = False
    break_lock: Annotated[
        bool,
        typer.Option("--break-lock", help="Take it from a process that has ended for sure."),
    ] = False
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Do not write report.html after each round.")
    ] = False
    quiet: options.Quiet = False


@dataclass(frozen=True, kw_only=True)
class CampaignStatusCommand:
    """Show rounds, labels, errors, what is waiting, time and cost."""

    directory: Directory
    as_json: options.AsJson = False


@dataclass(frozen=True, kw_only=True)
class CampaignExportCommand:
    """Write a fine-tuned .model for mace-torch, LAMMPS or OpenMM, and its training set."""

    directory: Directory
    best: Annotated[bool, typer.Option("--best", help="The round of lowest validation error.")] = (
        False
    )
    n_round: Annotated[int | None, typer.Option("--round", min=0, help="This round instead.")] = (
        None
    )
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder; by default 'export' in the campaign."),
    ] = None
