from __future__ import annotations

import pytest
from ase import Atoms

from labelwise.errors import LabelError
from labelwise.structures.levels import LEVEL_KEY, LevelCheck


def test_one_level_goes_with_what_does_not_say_its_own(water: Atoms) -> None:
    check = LevelCheck()
    check.add(water, "a@0")
    water.info[LEVEL_KEY] = "PBE"
    check.add(water, "a@1")
    check.add(water, "a@2")
    check.add_level("PBE", "the settings")


def test_two_levels_are_refused_by_name_and_place(water: Atoms) -> None:
    check = LevelCheck()
    water.info[LEVEL_KEY] = "PBE"
    check.add(water, "a@1")
    with pytest.raises(LabelError, match=r"a@1 is labelled at .*'PBE' and the settings at 'HF'"):
        check.add_level("HF", "the settings")
