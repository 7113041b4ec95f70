"""Durations, and times measured on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelwise.errors import ArgumentError
from labelwise.studies.comparison.budget import (
    measure_probe,
    parse_duration,
    scale_to_budget,
)
from labelwise.studies.comparison.budget_plan import Probe
from labelwise.studies.comparison.presets import make_preset
from tests.studies.comparison.pool_building import write_folder


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


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_folder(folder / "set", n_pool=64)
    return folder


def test_everything_that_methods_need_is_measured(home: Path) -> None:
    methods = ["random", "committee-f", "activation-lcmd", "activation-pv", "joint-pv"]
    study = make_preset(
        "scratch",
        home,
        data=[str(home / "set")],
        model={"path": "demo", "device": "cpu"},
        methods=methods,
        rounds=3,
    )
    probe = measure_probe(study, home, n_structures=10)
    assert set(probe.select_s) == {"activation", "joint-pv"}
    assert set(probe.update_s) == {1, 2}
    times = (*probe.select_s.values(), *probe.update_s.values(), probe.predict_s)
    assert all(value > 0 for value in times)
    assert probe.select_s["joint-pv"] > probe.select_s["activation"]


def test_a_study_is_scaled_with_given_times(home: Path) -> None:
    study = make_preset(
        "scratch",
        home,
        data=[str(home / "set")],
        model={"path": "demo"},
        methods=["random", "ntk-pv"],
    )
    probe = Probe({1: 0.1, 2: 0.1}, {"ntk-e": 0.01}, 0.01)
    scaled = scale_to_budget(study, home, seconds=300.0, n_processes=2, probe=probe)
    assert scaled.finetune["max_updates"] < 1000
    assert scaled.changes[-1].startswith("predicted time")
