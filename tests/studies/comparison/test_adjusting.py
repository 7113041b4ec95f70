"""A study made smaller by hand."""

from __future__ import annotations

from typing import Any

import pytest

from labelwise.errors import ArgumentError
from labelwise.studies.comparison.adjusting import adjust_study
from labelwise.studies.comparison.study import StudyConfig, check_study


def make_study(pool: str = "a.extxyz", **finetune: Any) -> StudyConfig:
    pools = {"a": {"pool": [pool], "test": {"files": ["t.extxyz"]}}}
    content = {"model": {"path": "demo"}, "pools": pools, "methods": ["random"]}
    return check_study({**content, "selection": {"initial_size": 2}, "finetune": finetune})


def test_nothing_is_changed_unasked() -> None:
    study = make_study()
    assert adjust_study(study) == study


@pytest.mark.parametrize(("n_updates", "validations"), [(2000, 40), (1000, 20), (300, 6), (10, 5)])
def test_validations_follow_updates(n_updates: int, validations: int) -> None:
    adjusted = adjust_study(make_study(), n_updates=n_updates)
    assert adjusted.finetune == {"max_updates": n_updates, "max_validations": validations}
    assert any(str(n_updates) in change for change in adjusted.changes)


def test_fewer_validations_than_five_stay() -> None:
    adjusted = adjust_study(make_study(max_validations=3), n_updates=100)
    assert adjusted.finetune["max_validations"] == 3


def test_pools_are_thinned_and_it_is_said() -> None:
    adjusted = adjust_study(make_study(), stride=4)
    assert adjusted.pools["a"].pool == ["a.extxyz@::4"]
    assert adjusted.pools["a"].test.files == ["t.extxyz"]
    assert adjusted.finetune == {}
    assert adjusted.changes == ["pools: one structure in 4"]


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ArgumentError, match="sliced already"):
        adjust_study(make_study("a.extxyz@:10"), stride=2)
    with pytest.raises(ArgumentError, match=">= 1"):
        adjust_study(make_study(), stride=0)
    with pytest.raises(ArgumentError, match=">= 1"):
        adjust_study(make_study(), n_updates=0)
