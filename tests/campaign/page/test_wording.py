from __future__ import annotations

import math

import numpy as np
import pytest

from labelwise.campaign.page.wording import (
    as_float32,
    choose_time_unit,
    is_wide,
    write_change,
    write_error,
    write_seconds,
)
from labelwise.campaign.pool_map import spread_evenly
from labelwise.selection.page.reasons import count


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.2, "3 s"), (150.0, "2 min"), (10_800.0, "3.0 h"), (0.0, "0 s")]
)
def test_times_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert write_seconds(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1232.98, "1233"), (39.251, "39.3"), (0.01234, "0.0123"), (0.0, "0"), (math.nan, "unknown")],
)
def test_errors_have_three_digits(value: float, text: str) -> None:
    assert write_error(value) == text


def test_changes_are_said_in_words() -> None:
    assert write_change(100.0, 72.0) == "28% below round 0"
    assert write_change(100.0, 110.0) == "10% above round 0"
    assert write_change(0.0, 1.0) == write_change(math.nan, 1.0) == ""


def test_units_of_time_axes() -> None:
    assert choose_time_unit([]) == ("s", 1.0)
    assert choose_time_unit([10.0, 1000.0]) == ("min", 60.0)
    assert choose_time_unit([1e5]) == ("h", 3600.0)


def test_logarithmic_scales_need_positive_numbers_that_differ() -> None:
    assert is_wide([1.0, 3.0, math.nan])
    assert not is_wide([1.0, 1.5])
    assert not is_wide([0.0, 3.0])
    assert not is_wide([])


def test_some_of_many() -> None:
    assert spread_evenly(3, 12) == [0, 1, 2]
    found = spread_evenly(100, 5)
    assert found == [0, 25, 50, 74, 99]
    assert spread_evenly(0, 5) == []


def test_numbers_for_a_page() -> None:
    found = as_float32([1.0, math.inf, 1e300])
    assert found.dtype == np.float32
    assert found[0] == 1.0
    assert np.isnan(found[1:]).all()
    assert (count(1, "round"), count(1200, "round")) == ("1 round", "1,200 rounds")
