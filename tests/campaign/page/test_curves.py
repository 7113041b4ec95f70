from __future__ import annotations

import pytest

from labelwise.campaign.page.curves import make_learning_curves
from labelwise.campaign.rounds import forecast
from labelwise.campaign.saved import SavedCampaign
from tests.campaign.page.reading import series


def test_curves_are_what_was_recorded(saved: SavedCampaign) -> None:
    forces, energy = make_learning_curves(saved)
    for choice, names in ((forces, ("forces_rmse", "forces_mae")),
                          (energy, ("energy_rmse", "energy_mae"))):  # fmt: skip
        for (_, chart), name in zip(choice.options, names, strict=True):
            for label, role in (("test", "test"), ("validation", "valid")):
                line = series(chart, label)
                assert line.x.tolist() == [4, 8, 12]
                recorded = [record.errors[role][name] for record in saved.state.rounds]
                assert line.y == pytest.approx(recorded, rel=1e-6)


def test_the_forecast_is_drawn(saved: SavedCampaign) -> None:
    expected = forecast(saved.state.rounds, 4)
    assert expected is not None
    (_, chart), *_ = make_learning_curves(saved)[0].options
    line = series(chart, "one more batch, forecast")
    assert line.x.tolist() == [12, 16]
    assert line.y == pytest.approx([expected.now, expected.expected], rel=1e-6)
    assert line.high is not None
    assert line.high[1] == pytest.approx(expected.expected * expected.spread, rel=1e-6)
    assert chart.band_name
