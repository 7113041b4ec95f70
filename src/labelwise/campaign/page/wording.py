"""How numbers and words of a campaign are written on its page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

_MINUTE = 60.0
_HOUR = 3600.0
#: A curve that falls by more than this factor is drawn on a logarithmic scale.
_WIDE = 2.0


def as_float32(values: Sequence[float | int] | np.ndarray) -> Float32[np.ndarray, " k"]:
    """Return numbers as a page holds them, (k,); infinities are unknown."""
    with np.errstate(over="ignore"):
        narrow = np.asarray(values, dtype=np.float64).astype(np.float32).ravel()
    found: Float32[np.ndarray, " k"] = np.where(np.isfinite(narrow), narrow, np.float32(np.nan))
    return found


def write_seconds(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"


def choose_time_unit(seconds: Sequence[float]) -> tuple[str, float]:
    """Return a unit for times on one axis, and how many seconds it has."""
    largest = max(seconds, default=0.0)
    if largest < 5 * _MINUTE:
        return "s", 1.0
    return ("min", _MINUTE) if largest < 5 * _HOUR else ("h", _HOUR)


def write_change(before: float, now: float) -> str:
    """Return by how much an error changed, in words; nothing where that cannot be told."""
    if not (math.isfinite(before) and math.isfinite(now) and before > 0):
        return ""
    change = now / before - 1.0
    return f"{abs(change):.0%} {'below' if change < 0 else 'above'} round 0"


def write_error(value: float) -> str:
    """Return an error in three significant digits, without an exponent."""
    if not math.isfinite(value):
        return "unknown"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(digits, 4)}f}"


def is_wide(values: Sequence[float]) -> bool:
    """Return whether positive numbers span so much that a logarithmic scale shows them better."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) > _WIDE * min(known)
