"""What can be asked about data sets as such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from labelwise.runtime.settings import CHOICE, Setting
from labelwise.selection.options import DEFAULT_REGULARISATION, Regularisation
from labelwise.structures.label_keys import LabelKeys

HERDING = "herding"
#: Rules that can summarise; ``top`` has no diversity and is left out.
SUMMARY_RULES = (HERDING, "lcmd", "k-center", "pv", "random")
#: Kernel distance below which two structures are near duplicates: above what float32 makes of
#: a rotated copy, below the steps of a relaxation.
DEFAULT_NEAR = 1e-4
#: Robust standard deviations beyond which something is an outlier.
DEFAULT_THRESHOLD = 5.0


@dataclass(frozen=True)
class CheckSettings(LabelKeys):
    """What counts as double and as an outlier."""

    near: Annotated[
        float,
        Setting(
            "Kernel distance below which two structures are near duplicates.", ge=0, panel=CHOICE
        ),
    ] = DEFAULT_NEAR
    threshold: Annotated[
        float,
        Setting(
            "Robust standard deviations beyond which something is an outlier.", gt=0, panel=CHOICE
        ),
    ] = DEFAULT_THRESHOLD
    regularisation: Regularisation = DEFAULT_REGULARISATION
    group_by: Annotated[
        str | None,
        Setting("Name the groups, by this info key, that share a structure.", metavar="KEY"),
    ] = None
