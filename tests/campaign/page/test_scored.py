from __future__ import annotations

import numpy as np
import pytest

from labelwise.campaign.datasets import GivenSets, open_given_sets
from labelwise.campaign.page import scored as scored_module
from labelwise.campaign.page.scored import read_labelled, score_held_out
from labelwise.campaign.saved import SavedCampaign

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


@pytest.fixture
def given(saved: SavedCampaign) -> GivenSets:
    return open_given_sets(saved.state)


def test_of_many_rounds_some_are_shown(
    saved: SavedCampaign, given: GivenSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scored_module, "MOST_ROUNDS", 2)
    found = score_held_out(saved, given, "valid", seed=0)
    assert found is not None
    assert found.rounds == (0, 2)
    assert found.extremes == (0, 1)
    assert found.title == "validation set"
    recorded = saved.state.rounds[2].errors["valid"]
    assert abs(found.errors[1].energy).mean() == pytest.approx(recorded["energy_mae"], rel=1e-6)


def test_a_large_set_is_drawn_from(
    saved: SavedCampaign, given: GivenSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = score_held_out(saved, given, "test", seed=0)
    assert scored is not None
    whole = scored.labelled
    assert (len(whole), whole.n_all) == (20, 20)
    monkeypatch.setattr(scored_module, "MOST_STRUCTURES", 7)
    scored = score_held_out(saved, given, "test", seed=0)
    assert scored is not None
    found = scored.labelled
    assert (len(found), found.n_all) == (7, 20)
    places = [frame.index for frame in found.frames]
    assert np.array_equal(found.energies, whole.energies[places])
    assert scored.title == "test set (7 of its 20 structures)"


def test_batches_have_the_labels_of_the_log(saved: SavedCampaign) -> None:
    keys = saved.state.keys_of_round(1, "train")
    frames = saved.state.labelled_frames(keys)
    found = read_labelled(saved.state, "batch", frames, n_all=len(frames))
    assert found.energies.tolist() == [saved.state.labels[key]["energy"] for key in keys]
