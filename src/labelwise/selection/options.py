"""What can be asked of a selection."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Literal

from labelwise.errors import SelectionError
from labelwise.features.options import KernelOptions
from labelwise.runtime.settings import CHOICE, MACHINE, Setting

DEFAULT_REGULARISATION = 1e-3
#: λ, in units of the mean prior variance of a structure; see benchmarks/results/force_errors.md.
DEFAULT_JOINT_REGULARISATION = 0.3
Regularisation = Annotated[float, Setting("λ of the posterior variance.", gt=0, panel=CHOICE)]


@dataclass(frozen=True)
class SelectionOptions(KernelOptions):
    """How structures are chosen, whatever their number."""

    rule: Annotated[
        str, Setting("pv, lcmd, k-center, top, target, joint-pv or random.", panel=CHOICE)
    ] = "lcmd"
    shortlist: Annotated[
        int | None,
        Setting(
            "First keep the K structures of highest posterior variance.",
            ge=1,
            metavar="K",
            panel=CHOICE,
        ),
    ] = None
    regularisation: Annotated[
        float | None,
        Setting(
            "λ of the posterior variance; by default 0.3 for joint-pv, else 1e-3.",
            gt=0,
            panel=CHOICE,
        ),
    ] = None
    max_atoms: Annotated[
        int | None,
        Setting(
            "Set structures of more atoms aside; by default those that do not fit into memory.",
            ge=1,
            panel=MACHINE,
        ),
    ] = None


@dataclass(frozen=True)
class RuleFacts:
    """What a summary keeps and a page tells of a rule; see ``rules.Rule``."""

    name: str
    _: KW_ONLY
    says: str = ""
    score_name: str | None = "score"
    why: str = ""
    has_clusters: bool = False
    is_random: bool = False
    takes_target: bool = False
    takes: Literal["kernel", "row-sets"] = "kernel"


def check_regularisation(regularisation: float) -> None:
    """Raise unless the regularisation λ is a finite positive number.

    Raises:
        SelectionError: It is not.
    """
    if not (math.isfinite(regularisation) and regularisation > 0):
        raise SelectionError(
            f"regularisation={regularisation!r}: allowed are finite numbers above 0 "
            f"(the default is {DEFAULT_REGULARISATION})"
        )
