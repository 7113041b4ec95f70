"""What ``labelwise report`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from labelwise.cli import options
from labelwise.errors import ReadError
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
Map = Annotated[
    Literal["pca", "umap"],
    Setting("How the map of the pool is made; umap needs umap-learn.", flags=("--map",)),
]
ColourBy = Annotated[
    str | None,
    Setting("Colour maps by this column at first.", flags=("--colour-by",), metavar="KEY"),
]
Seed = Annotated[int, Setting("Seeds samples and UMAP.", flags=("--seed",), ge=0)]

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
    map_method: Map = "pca"
    colour_by: ColourBy = None
    model: OldModel = None
    trust_model: OldTrust = False
    device: OldDevice = None
    seed: Seed = 0
    max_megabytes: Annotated[float, Setting("How large the page may become, MB.")] = 9.0
    open_page: Annotated[bool, Setting("Open the page in the browser.", flags=("--open",))] = False
    force: options.Force = False
    quiet: options.Quiet = False

    def check(self) -> None:
        """Raise ``ReadError`` if there is nothing to show."""
        require_target(self.target)
