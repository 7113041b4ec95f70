from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.curves import write_curves
from labelwise.campaign.errors import CampaignError
from labelwise.campaign.rounds import RoundRecord, forecast, get_curve
from labelwise.campaign.seeds import derive_seed
from labelwise.campaign.state import CampaignState
from labelwise.campaign.stopping import find_reason_to_stop
from tests.campaign.building import make_config


def make_record(n_round: int, n_train: int, errors: dict[str, Any]) -> RoundRecord:
    stages = {"label": {"seconds": 60.0, "peak_mib": 1}}
    return RoundRecord.from_line(
        {"round": n_round, "n_train": n_train, "errors": errors, "stages": stages}
    )


def make_rounds(errors: list[float], *, n_batch: int = 5) -> list[RoundRecord]:
    return [
        make_record(i, 10 + n_batch * i, {"test": {"forces_rmse": each, "energy_rmse": 2 * each}})
        for i, each in enumerate(errors)
    ]


def make_state(tmp_path: Path, records: list[RoundRecord], /, **stop: Any) -> CampaignState:
    config = CampaignConfig.model_validate(make_config(tmp_path, stop={"rounds": None, **stop}))
    labels: dict[str, dict[str, Any]] = {str(i): {} for i in range(10)}
    return CampaignState(tmp_path, config, labels, {"f": {}}, tuple(records))


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ({}, None),
        ({"rounds": 4}, None),
        ({"rounds": 3}, "3 rounds are done"),
        ({"labels": 12}, None),
        ({"labels": 11}, "the budget of 11 labels is spent"),
        ({"hours": 0.07}, None),
        ({"hours": 0.06}, "0.06 hours are over"),
        ({"target": {"forces_rmse": 50.0}}, "the target is reached: forces_rmse 50"),
        ({"target": {"forces_rmse": 50.0, "energy_rmse": 99.0}}, None),
        ({"target": {"forces_mae": 50.0}}, None),
        ({"plateau": {"rounds": 1, "improvement": 0.1}}, None),
        ({"plateau": {"rounds": 1, "improvement": 0.2}}, "no progress: forces_rmse fell"),
    ],
)
def test_reasons(tmp_path: Path, stop: dict[str, Any], reason: str | None) -> None:
    rounds = make_rounds([100.0, 80.0, 60.0, 50.0])
    found = find_reason_to_stop(make_state(tmp_path, rounds, **stop), n_left=5)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(reason)


def test_a_round_under_way_is_finished(tmp_path: Path) -> None:
    state = make_state(tmp_path, make_rounds([1.0, 1.0]), rounds=1)
    assert find_reason_to_stop(state, n_left=5) is not None
    state.folder.mkdir()
    (state.folder / "picks.json").write_text("{}")
    assert find_reason_to_stop(state, n_left=0) is None
    assert find_reason_to_stop(make_state(tmp_path / "new", []), n_left=0) is None


def test_an_empty_pool_ends_it(tmp_path: Path) -> None:
    state = make_state(tmp_path, make_rounds([1.0]))
    assert "no structures left" in str(find_reason_to_stop(state, n_left=0))


@given(
    power=st.floats(-2.0, 0.0),
    factor=st.floats(1.0, 1e3),
    n_rounds=st.integers(3, 9),
    n_batch=st.integers(1, 50),
)
def test_forecast_knows_a_power_law(
    power: float, factor: float, n_rounds: int, n_batch: int
) -> None:
    n_train = 10 + n_batch * np.arange(n_rounds + 1)
    errors = factor * n_train.astype(float) ** power
    found = forecast(make_rounds(errors[:-1].tolist(), n_batch=n_batch), n_batch)
    assert found is not None
    assert found.expected == pytest.approx(errors[-1], rel=1e-6)
    assert found.spread == pytest.approx(1.0, abs=1e-6)
    assert found.gain == pytest.approx(1 - errors[-1] / errors[-2], abs=1e-6)


def test_forecast_tells_how_much_the_curve_scatters() -> None:
    found = forecast(make_rounds([100.0, 60.0, 90.0, 50.0, 80.0]), 5)
    assert found is not None
    assert found.spread > 1.2
    assert forecast(make_rounds([3.0, 2.0]), 5) is None


def test_curve_falls_back_on_the_validation_set_and_is_drawn(tmp_path: Path) -> None:
    rounds = make_rounds([3.0, 2.0])
    rounds[1] = make_record(1, 15, {"valid": {"forces_rmse": 7.0, "energy_rmse": 8.0}})
    assert get_curve(rounds, "forces_rmse") == [(10, 3.0), (15, 7.0)]
    write_curves(tmp_path / "curves.png", rounds)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    rounds = [make_record(0, 10, {}), make_record(1, 15, {})]
    with pytest.raises(CampaignError, match="no round was measured"):
        write_curves(tmp_path / "curves.png", rounds)


def test_seeds_depend_on_what_they_are_for() -> None:
    seeds = {
        derive_seed(campaign, n_round, purpose)
        for campaign in range(20)
        for n_round in range(20)
        for purpose in ("select train", "finetune")
    }
    assert len(seeds) == 800
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(3, 1, "finetune") == derive_seed(3, 1, "finetune")
