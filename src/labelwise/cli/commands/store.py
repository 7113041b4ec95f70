"""What ``labelwise store`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.runtime.settings import Setting


@dataclass(frozen=True, kw_only=True)
class StoreCommand:
    """Show what a feature store holds; fails if --verify finds damage."""

    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that 'select --store' has made.")
    ]
    verify: Annotated[
        bool, Setting("Read everything and compare checksums; nothing is changed.")
    ] = False
    repair: Annotated[
        bool,
        Setting(
            "Verify, and set damaged chunks aside: the next 'select --store' computes their "
            "structures again."
        ),
    ] = False
    as_json: options.AsJson = False
