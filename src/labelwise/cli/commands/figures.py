"""What ``labelwise figures`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.cli import options
from labelwise.cli.commands.report import (
    OldDevice,
    OldModel,
    OldTrust,
    Target,
    require_target,
)
from labelwise.pages.figures.settings import FigureSettings
from labelwise.pages.options import ReportOptions
from labelwise.runtime.settings import OUTPUT, Setting


@dataclass(frozen=True, kw_only=True)
class FiguresCommand:
    """Draw what the page of a selection, a campaign or a comparison shows, fit for a paper.

    Every chart, heat map and map becomes a figure of its own, every table a CSV file, and
    figures.md lists them with their captions. The same results give the same bytes.
    """

    target: Target
    out: Annotated[Path, Setting("Folder of the figures.", flags=("--out", "-o"), panel=OUTPUT)]
    settings: FigureSettings
    page: Annotated[ReportOptions, options.Take(without=("max_megabytes",))]
    model: OldModel = None
    trust_model: OldTrust = False
    device: OldDevice = None
    quiet: options.Quiet = False

    def check(self) -> None:
        """Raise ``ReadError`` if there is nothing to show."""
        require_target(self.target)
