from __future__ import annotations

import pytest

from labelwise.campaign.context import CampaignContext
from labelwise.campaign.datasets import read_given_sets
from labelwise.campaign.page import scored as scored_module
from labelwise.campaign.page.scored import score_held_out
from labelwise.campaign.saved import SavedCampaign

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


def test_of_many_rounds_some_are_shown(
    saved: SavedCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scored_module, "MOST_ROUNDS", 2)
    context = CampaignContext(read_given_sets(saved.state.directory, saved.config, {}), {})
    found = score_held_out(saved, context, "valid", seed=0)
    assert found is not None
    assert found.rounds == (0, 2)
    assert found.extremes == (0, 1)
    assert found.title == "validation set"
    recorded = saved.state.rounds[2].errors["valid"]
    assert abs(found.errors[1].energy).mean() == pytest.approx(recorded["energy_mae"], rel=1e-6)
