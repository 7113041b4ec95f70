from __future__ import annotations

import pytest

from labelwise.studies.comparison.series import compare_cells
from labelwise.studies.comparison.wording import describe_interval, describe_spread
from tests.studies.comparison.building import make_study


@pytest.mark.parametrize(
    ("pools", "seeds", "spread", "interval"),
    [
        (["a", "b"], [0, 1], "of the pool means", "95 % t-interval of its logarithm over pool"),
        (["a"], [0, 1], "standard error over seeds", "not of other pools"),
        (["a"], [0], "there is one seed only", "one pair only, so no interval"),
    ],
)
def test_spreads_and_intervals_are_told_as_they_are(
    pools: list[str], seeds: list[int], spread: str, interval: str
) -> None:
    comparison = compare_cells(make_study(("random", "ntk-lcmd"), pools=pools, seeds=seeds))
    assert spread in describe_spread(comparison)
    assert interval in describe_interval(comparison)
