"""What ``labelwise inspect`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.potentials.spec import Device
from labelwise.runtime.settings import Setting


@dataclass(frozen=True, kw_only=True)
class ModelsCommand:
    """List the models that --model takes by name."""

    as_json: options.AsJson = False


@dataclass(frozen=True, kw_only=True)
class DoctorCommand:
    """Show versions and devices and run a self-check of about ten seconds."""

    device: Device = "auto"
    as_json: options.AsJson = False


@dataclass(frozen=True, kw_only=True)
class DemoCommand:
    """Write the embedded reaction pool, to try the other commands on."""

    folder: Annotated[Path, typer.Argument(help="Where the files go.")] = Path("demo")
    force: Annotated[bool, Setting("Replace files that are there.")] = False
