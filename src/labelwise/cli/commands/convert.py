"""What ``labelwise convert`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from labelwise.cli import options
from labelwise.potentials.spec import Head, Trust
from labelwise.runtime.settings import Setting


@dataclass(frozen=True, kw_only=True)
class ConvertCommand:
    """Write a model to another kind of file, such as a .pt of weights, which runs no code.

    A .pt of a MACE model can be read without trust, and with other versions of mace-torch and
    e3nn than those that wrote the .model; FAMILY is mace, sevennet, ... where the content of a
    file does not tell.
    """

    model: Annotated[
        str, typer.Argument(help="A model file, a name from 'labelwise models', or FAMILY:FILE.")
    ]
    out: Annotated[
        Path, Setting("The file; its ending says of what kind it is.", flags=("--out", "-o"))
    ]
    head: Head = None
    trust: Trust = False
    quiet: options.Quiet = False
    force: options.Force = False
