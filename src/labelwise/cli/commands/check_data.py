"""What ``labelwise check_data`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.cli import options
from labelwise.features.options import KernelOptions
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import OUTPUT, Setting
from labelwise.studies.curation.settings import CheckSettings


@dataclass(frozen=True, kw_only=True)
class CheckDataCommand:
    """Find duplicates, structures that stand alone, and labels that do not fit.

    Without a model only exact duplicates and labels are looked at. With one, or a
    representation that needs none, near duplicates (moved, rotated and re-ordered copies
    among them) and structures that all others do not explain are found as well.
    """

    pool: options.Pool
    out: Annotated[
        Path | None,
        Setting("Write all structures but exact duplicates here.", flags=("--out", "-o")),
    ] = None
    settings: CheckSettings
    model: ModelSpec
    kernel: KernelOptions
    summary: Annotated[Path | None, Setting("Where a JSON record goes.", panel=OUTPUT)] = None
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
