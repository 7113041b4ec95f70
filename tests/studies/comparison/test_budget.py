"""Durations, times measured on this machine, and planning by given numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labelwise.errors import ArgumentError
from labelwise.studies.comparison.budget import (
    SAFETY,
    PoolSize,
    Probe,
    count_sets,
    forecast,
    format_duration,
    measure_probe,
    plan_budget,
    scale_to_budget,
)
from labelwise.studies.comparison.costs import COSTS
from labelwise.studies.comparison.presets import make_preset
from labelwise.studies.comparison.study import StudyConfig, check_study
from tests.studies.comparison.pool_building import write_folder


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
    probe = measure_probe(study, home, home, count_sets(study, home))
    assert (home / COSTS).exists()
    assert list(probe.select_s) == methods
    assert set(probe.update_s) == {1, 2}
    assert probe.select_s["random"] == 0
    times = (*list(probe.select_s.values())[1:], *probe.update_s.values(), probe.predict_s)
    assert all(value > 0 for value in times)
    assert probe.select_s["joint-pv"] > probe.select_s["activation-pv"]


def test_a_study_is_scaled_with_given_times(home: Path) -> None:
    study = make_preset(
        "scratch",
        home,
        data=[str(home / "set")],
        model={"path": "demo"},
        methods=["random", "ntk-pv"],
    )
    probe = Probe({1: 0.1, 2: 0.1}, {"random": 0.0, "ntk-pv": 0.01}, 0.01)
    scaled = scale_to_budget(study, home, home, seconds=300.0, n_processes=2, probe=probe)
    assert scaled.finetune["max_updates"] < 1000
    assert scaled.changes[-1].startswith("predicted time")


PROBE = Probe(
    update_s={1: 0.02, 2: 0.03, 4: 0.05},
    select_s={"random": 0.0, "ntk-pv": 0.004, "committee-e": 0.006},
    predict_s=0.002,
)
SIZES = {"a": PoolSize(3000, 0, 50, 100)}


def _study(**changes: Any) -> StudyConfig:
    content: dict[str, Any] = {
        "model": {"path": "demo"},
        "pools": {"a": {"pool": ["pool.extxyz"]}},
        "methods": ["random", "ntk-pv", "committee-e"],
        "seeds": [0, 1, 2],
        "selection": {"batch_size": 5, "initial_size": 10},
        "rounds": 20,
    }
    return check_study({**content, **changes})


def _seconds(study: StudyConfig, sizes: dict[str, PoolSize] = SIZES) -> float:
    return forecast(study, sizes, PROBE, n_processes=2).seconds


def test_one_campaign_by_hand() -> None:
    study = _study(seeds=[0], rounds=2, finetune={"max_updates": 400, "max_validations": 4})
    found = forecast(study, SIZES, PROBE, n_processes=1)
    updates = 400 * 0.02  # 10, 15 and 20 labels: batches of one
    round_s = updates + 5 * 50 * 0.002 + 150 * 0.002
    random = 3 * round_s
    assert found.cell_s["a", "random", 0] == pytest.approx(SAFETY * random)
    kernel = random + 2 * 3000 * 0.004
    assert found.cell_s["a", "ntk-pv", 0] == pytest.approx(SAFETY * kernel)
    committee = random + 3 * 2 * (updates + 5 * 50 * 0.002) + 2 * 3 * 3000 * 0.002
    assert found.cell_s["a", "committee-e", 0] == pytest.approx(SAFETY * committee)
    assert found.seconds == pytest.approx(sum(found.cell_s.values()))


def test_processes_share_the_campaigns() -> None:
    study = _study(methods=["random"], seeds=[0, 1, 2])
    one, two, four = (forecast(study, SIZES, PROBE, n_processes=n).seconds for n in (1, 2, 4))
    assert two == pytest.approx(one * 2 / 3)
    assert four == pytest.approx(one / 3)


def test_what_fits_is_left_alone() -> None:
    study = _study()
    found = plan_budget(study, SIZES, PROBE, seconds=1e9, n_processes=2)
    assert "nothing was scaled" in found.changes[0]
    assert found.model_copy(update={"changes": []}) == study


@pytest.mark.parametrize("part", [0.9, 0.5, 0.3, 0.15, 0.08, 0.05, 0.03])
def test_the_plan_fits_and_keeps_its_order(part: float) -> None:
    study = _study()
    budget = part * _seconds(study)
    found = plan_budget(study, SIZES, PROBE, seconds=budget, n_processes=2)
    is_smallest = (found.rounds, len(found.seeds)) == (6, 1)
    assert _seconds(found) <= budget or is_smallest
    updates = found.finetune.get("max_updates")
    if updates is not None:
        assert updates >= 200
        more = {**found.finetune, "max_updates": updates + 50}
        wider = found.model_copy(update={"finetune": more})
        assert _seconds(wider) > budget
    if found.rounds < 20 and len(found.seeds) == 3:
        longer = found.model_copy(update={"rounds": found.rounds + 1})
        assert _seconds(longer) > budget


def test_less_time_never_gives_more() -> None:
    study = _study()
    full = _seconds(study)
    seeds = [
        len(plan_budget(study, SIZES, PROBE, seconds=full * part, n_processes=2).seeds)
        for part in (1.0, 0.3, 0.1, 0.05, 0.02)
    ]
    assert seeds == sorted(seeds, reverse=True)
    assert seeds[0] == 3
    assert seeds[-1] == 1


def test_what_cannot_fit_is_said() -> None:
    found = plan_budget(_study(), SIZES, PROBE, seconds=1.0, n_processes=2)
    assert (found.rounds, found.seeds) == (6, [0])
    assert found.finetune["max_updates"] == 200
    assert "it does not fit" in found.changes[-1]
    assert found.changes[0] == "updates a round: 200 at most, validated 5 times"
    assert "seeds: 3 → 1 (0)" in found.changes


def test_structures_are_counted(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "set", n_pool=120)
    files = {role: {"files": [f"set/{role}.extxyz"]} for role in ("valid", "test")}
    study = _study(pools={"a": {"pool": [f"{source}/pool.extxyz@::3"], **files}})
    assert count_sets(study, tmp_path) == {"a": PoolSize(40, 0, 8, 16)}


def test_numbers_out_of_range() -> None:
    with pytest.raises(ArgumentError, match=r"the budget is 0\.0"):
        plan_budget(_study(), SIZES, PROBE, seconds=0.0, n_processes=1)
    with pytest.raises(ArgumentError, match="n_processes is 0"):
        plan_budget(_study(), SIZES, PROBE, seconds=1.0, n_processes=0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(42.0, "42 s"), (3300.0, "55 min"), (11520.0, "3.2 h")]
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
