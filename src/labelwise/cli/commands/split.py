"""What ``labelwise split`` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from labelwise.cli import options
from labelwise.features.options import KernelOptions
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import CHOICE, OUTPUT, Setting
from labelwise.studies.curation.settings import HERDING

RANDOM, KERNEL, COVER = "random", "kernel", "cover"


@dataclass(frozen=True, kw_only=True)
class SplitCommand:
    """Split a data set into training, validation and test sets, and report what leaks.

    With a model, or a representation that needs none, kernel distances from one set to the
    nearest of another are reported however the split was made. Isolated atoms go into the
    training set; broken structures are left out and listed in split.json.
    """

    pool: options.Pool
    out: Annotated[
        Path,
        Setting("Folder for train, valid and test.extxyz and split.json.", flags=("--out", "-o")),
    ]
    valid_fraction: Annotated[float, Setting("Fraction for validation; 0 for none.")] = 0.1
    test_fraction: Annotated[float, Setting("Fraction for testing; 0 for none.")] = 0.1
    by: Annotated[
        str,
        Setting(
            "random: copies stay together. KEY, an info key: so do its groups, and groups "
            "that share a structure. kernel: sets keep a distance under the kernel. cover: "
            "test and validation sets that stand for the whole.",
            metavar="random|kernel|cover|KEY",
            panel=CHOICE,
        ),
    ] = RANDOM
    distance: Annotated[
        float | None,
        Setting(
            "Kernel distance to keep with --by kernel; by default the largest that "
            "leaves the sizes near those asked for.",
            panel=CHOICE,
        ),
    ] = None
    rule: Annotated[
        str, Setting("Of --by cover: herding, lcmd, k-center, pv or random.", panel=CHOICE)
    ] = HERDING
    group_by: Annotated[
        str | None,
        Setting(
            "Report groups, by this info key, that are in two sets; with --by KEY its own.",
            metavar="KEY",
            panel=OUTPUT,
        ),
    ] = None
    model: ModelSpec
    kernel: KernelOptions
    strict: options.Strict = False
    quiet: options.Quiet = False
    as_json: options.AsJson = False
    force: options.Force = False
