"""Whether two outcomes are equal: to the bit, within rounding, or not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

#: Largest relative difference of two numbers that count as equal within rounding.
TOLERANCE = 1e-6
#: Differences of this size or less are rounding noise of sums that cancel: kernel distances of
#: copies, of float32 rows, are about 1e-7 in place of 0.
NOISE = 1e-8
#: Ending of quantities that say only whether the bits are equal.
BITS = "_sha256"

_MISSING = object()


class Verdict(IntEnum):
    """How an outcome compares with the recorded one, from best to worst."""

    EQUAL = 0
    CLOSE = 1
    NOW_RUNS = 2
    DIFFERENT = 3


@dataclass(frozen=True)
class Comparison:
    """What the comparison of one case found.

    Attributes:
        verdict: Of all of its quantities the worst.
        where: The first quantity with that verdict; empty if all are equal.
        detail: Its two values.
        largest: Largest relative difference of two numbers that are close.
    """

    verdict: Verdict
    where: str = ""
    detail: str = ""
    largest: float = 0.0


def compare(recorded: dict[str, Any], found: dict[str, Any]) -> Comparison:
    """Hold an outcome against the recorded one.

    A quantity that was recorded must be there; one that was not is ignored. A command that was
    refused may come to be possible, which is a verdict of its own.

    Args:
        recorded: What a case came to once.
        found: What it comes to now.
    """
    if recorded["exit"] != 0 and found["exit"] == 0:
        return Comparison(Verdict.NOW_RUNS, "exit", f"{recorded['exit']} → 0")
    if recorded["exit"] != found["exit"]:
        return Comparison(Verdict.DIFFERENT, "exit", f"{recorded['exit']} → {found['exit']}")
    if recorded["exit"] != 0:
        return Comparison(Verdict.EQUAL)
    now = dict(_flatten(found))
    worst = Comparison(Verdict.EQUAL)
    largest = 0.0
    for where, value in _flatten(recorded):
        verdict, distance = _judge(where, value, now.get(where, _MISSING))
        largest = max(largest, distance)
        if verdict > worst.verdict:
            other = "missing" if where not in now else repr(now[where])
            worst = Comparison(verdict, where, f"{value!r} → {other}")
    return Comparison(worst.verdict, worst.where, worst.detail, largest)


def _flatten(content: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with its place, and the length of each list."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flatten(value, f"{where}/{key}" if where else str(key))
    elif isinstance(content, list):
        yield f"{where}/length", len(content)
        for i, value in enumerate(content):
            yield from _flatten(value, f"{where}/{i}")
    else:
        yield where, content


def _judge(where: str, recorded: Any, found: Any) -> tuple[Verdict, float]:
    """Return the verdict on one value, and the relative difference of numbers that are close."""
    if found is _MISSING:
        return Verdict.DIFFERENT, 0.0
    if _are_numbers(recorded, found):
        return _judge_numbers(float(recorded), float(found))
    if recorded == found and type(recorded) is type(found):
        return Verdict.EQUAL, 0.0
    return (Verdict.CLOSE if where.endswith(BITS) else Verdict.DIFFERENT), 0.0


def _are_numbers(recorded: Any, found: Any) -> bool:
    """Tell whether two values are numbers one of which has a fraction: counts must be equal."""
    numbers = (int, float)
    if isinstance(recorded, bool) or isinstance(found, bool):
        return False
    both = isinstance(recorded, numbers) and isinstance(found, numbers)
    return both and (isinstance(recorded, float) or isinstance(found, float))


def _judge_numbers(recorded: float, found: float) -> tuple[Verdict, float]:
    if recorded == found or (math.isnan(recorded) and math.isnan(found)):
        return Verdict.EQUAL, 0.0
    distance = abs(recorded - found)
    if not math.isfinite(distance):
        return Verdict.DIFFERENT, 0.0
    if distance <= NOISE:
        return Verdict.CLOSE, 0.0
    relative = distance / max(abs(recorded), abs(found))
    return (Verdict.CLOSE if relative <= TOLERANCE else Verdict.DIFFERENT), relative
