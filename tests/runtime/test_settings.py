"""Settings are declared once; what is made of them says the same."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest

from labelwise.errors import ArgumentError
from labelwise.features.options import REDUCTION_NAMES, RepresentationOptions
from labelwise.features.representations.reductions import REDUCTIONS
from labelwise.finetuning.recipe import Recipe
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import check_bounds, list_settings
from labelwise.selection.options import SelectionOptions
from labelwise.structures.label_keys import LabelKeys
from labelwise.studies.curation.settings import CheckSettings
from labelwise.studies.diagnostics.settings import CalibrationSettings

GROUPS = [
    CalibrationSettings, CheckSettings, LabelKeys, ModelSpec, Recipe, RepresentationOptions,
    SelectionOptions,
]  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_defaults_are_what_may_be_given(group: Any) -> None:
    defaults = {field.name: field.default for field in fields(group)}
    settings = list_settings(group)
    assert settings
    for name, (_, setting) in settings.items():
        assert setting.help.endswith(".")
        default = defaults[name]
        assert default is not MISSING
        if setting.choices and default is not None:
            assert default in setting.choices
        for bound, is_inside in (
            (setting.ge, lambda value, bound: value >= bound),
            (setting.gt, lambda value, bound: value > bound),
            (setting.le, lambda value, bound: value <= bound),
        ):
            assert bound is None or default is None or is_inside(default, bound)


def test_a_groups_own_settings_come_first() -> None:
    assert [*list_settings(SelectionOptions)][:2] == ["rule", "shortlist"]
    assert set(list_settings(RepresentationOptions)) < set(list_settings(SelectionOptions))


def test_reductions_are_those_that_there_are() -> None:
    assert tuple(REDUCTIONS) == REDUCTION_NAMES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"near": -1.0}, "near is -1.0; allowed is >= 0"),
        ({"threshold": 0.0}, "threshold is 0.0; allowed is > 0"),
        ({"regularisation": float("nan")}, "regularisation is nan"),
    ],
)
def test_bounds_are_checked_where_they_are_declared(change: Any, message: str) -> None:
    check_bounds(CheckSettings())
    with pytest.raises(ArgumentError, match=message):
        check_bounds(CheckSettings(**change))
