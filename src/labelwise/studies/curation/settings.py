"""What can be asked about data sets as such."""

from __future__ import annotations

import math
from dataclasses import dataclass

from labelwise.errors import ArgumentError
from labelwise.selection.options import DEFAULT_REGULARISATION
from labelwise.structures.label_keys import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY

HERDING = "herding"
#: Rules that can summarise; ``top`` has no diversity and is left out.
SUMMARY_RULES = (HERDING, "lcmd", "k-center", "pv", "random")
#: Kernel distance below which two structures are near duplicates: above what float32 makes of
#: a rotated copy, below the steps of a relaxation.
DEFAULT_NEAR = 1e-4
#: Robust standard deviations beyond which something is an outlier.
DEFAULT_THRESHOLD = 5.0


@dataclass(frozen=True)
class CheckSettings:
    """What counts as double and as an outlier.

    Attributes:
        near: Kernel distance of near duplicates, dimensionless, >= 0.
        threshold: Robust standard deviations of outliers, > 0.
        regularisation: λ of the posterior variance, in units of the kernel, > 0.
        energy_key: Info key of the energies, eV.
        forces_key: Array key of the forces, eV/Å.
        group_by: Info key of groups, for instance reactions; None for none.
    """

    near: float = DEFAULT_NEAR
    threshold: float = DEFAULT_THRESHOLD
    regularisation: float = DEFAULT_REGULARISATION
    energy_key: str = DEFAULT_ENERGY_KEY
    forces_key: str = DEFAULT_FORCES_KEY
    group_by: str | None = None

    def check(self) -> None:
        """Raise ``ArgumentError`` if a number is out of range."""
        if not (math.isfinite(self.near) and self.near >= 0):
            raise ArgumentError(f"near is {self.near}; it must be finite and at least 0")
        for name, value in (("threshold", self.threshold), ("regularisation", self.regularisation)):
            if not (math.isfinite(value) and value > 0):
                raise ArgumentError(f"{name} is {value}; it must be finite and above 0")
