"""What can be asked of a selection."""

from __future__ import annotations

import math

from labelwise.errors import SelectionError

DEFAULT_REGULARISATION = 1e-3
#: λ, in units of the mean prior variance of a structure; see benchmarks/results/force_errors.md.
DEFAULT_JOINT_REGULARISATION = 0.3


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
