"""What ``labelwise report`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.errors import ReadError
from labelwise.pages.options import ReportOptions
from labelwise.runtime.settings import Setting

# What 'labelwise figures' takes, too.
Target = Annotated[
    Path,
    typer.Argument(
        help="The JSON summary or the batch of a selection, or the folder of a campaign or a "
        "study.",
        show_default=False,
    ),
]

# Of the first versions, whose pages were computed when they were made; without effect.
OldModel = Annotated[str | None, typer.Option("--model", hidden=True, help="No effect any more.")]
OldTrust = Annotated[bool, typer.Option("--trust-model", hidden=True, help="No effect any more.")]
OldDevice = Annotated[str | None, typer.Option("--device", hidden=True, help="No effect any more.")]

#: What has a page.
TARGETS = (
    "the JSON summary or the batch of 'labelwise select', the folder of a campaign, or the folder "
    "of a study"
)


def require_target(target: Path) -> None:
    """Raise ``ReadError`` if there is nothing at a path."""
    if not target.exists():
        raise ReadError(f"there is no {target}; give {TARGETS}")


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Write one self-contained page that shows what was chosen and why.

    It shows a selection, a campaign or a comparison, and needs no network when it is opened.
    """

    target: Target
    out: Annotated[
        Path | None,
        Setting(
            "Where the page goes; by default beside the summary, or report.html in the folder.",
            flags=("--out", "-o"),
        ),
    ] = None
    page: ReportOptions
    model: OldModel = None
    trust_model: OldTrust = False
    device: OldDevice = None
    open_page: Annotated[bool, Setting("Open the page in the browser.", flags=("--open",))] = False
    force: options.Force = False
    quiet: options.Quiet = False

    def check(self) -> None:
        """Raise ``ReadError`` if there is nothing to show."""
        require_target(self.target)
