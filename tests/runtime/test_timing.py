from __future__ import annotations

import time

import pytest

from labelwise.errors import ArgumentError
from labelwise.runtime.timing import Stage, Stopwatch, parse_duration


def test_nested_stages_are_charged_once() -> None:
    watch = Stopwatch()
    with watch.stage("outer", 2):
        time.sleep(0.02)
        with watch.stage("inner", 3):
            time.sleep(0.05)
        time.sleep(0.02)
    outer, inner = watch.stages()
    assert (outer.name, outer.n_structures) == ("outer", 2)
    assert (inner.name, inner.n_structures) == ("inner", 3)
    assert 0.04 <= outer.seconds < 0.06 + 0.05
    assert inner.seconds >= 0.05
    assert outer.seconds + inner.seconds < 0.3


def test_iterating_times_the_source_and_counts_its_items() -> None:
    def slow() -> object:
        for number in range(3):
            time.sleep(0.01)
            yield number

    watch = Stopwatch()
    seen = []
    for item in watch.iterate("read", slow()):
        seen.append(item)
        time.sleep(0.03)  # the consumer's time is not the source's
    (stage,) = watch.stages()
    assert seen == [0, 1, 2]
    assert stage.n_structures == 3
    assert 0.03 <= stage.seconds < 0.09


def test_an_error_in_a_stage_leaves_the_watch_usable() -> None:
    watch = Stopwatch()
    with pytest.raises(ValueError, match="broken"), watch.stage("a"):
        raise ValueError("broken")
    with watch.stage("b", 1):
        pass
    assert [stage.name for stage in watch.stages()] == ["a", "b"]


def test_rate_of_a_stage_that_took_no_time_is_zero() -> None:
    assert Stage("x", 0.0, 5).structures_per_second == 0.0
    assert Stage("x", 2.0, 5).structures_per_second == 2.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45m", 2700),
        ("2h", 7200),
        ("90s", 90),
        ("1h30m", 5400),
        ("0.5h", 1800),
        (" 1H 2m 3s ", 3723),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "45", "m", "-3m", "3m2h", "0s", "1d", "1.m", "nanm"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ArgumentError, match="such as 45m"):
        parse_duration(text)
