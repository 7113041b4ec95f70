from __future__ import annotations

import numpy as np
import pytest

from labelwise.campaign.context import CampaignContext
from labelwise.campaign.datasets import read_given_sets
from labelwise.campaign.page import labelled_sets
from labelwise.campaign.page.labelled_sets import batch_set, held_out_set
from labelwise.campaign.saved import SavedCampaign


@pytest.fixture
def context(saved: SavedCampaign) -> CampaignContext:
    return CampaignContext(read_given_sets(saved.state.directory, saved.config, {}), {})


def test_a_large_set_is_drawn_from(
    saved: SavedCampaign, context: CampaignContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = held_out_set(saved.state, context, "test", seed=0)
    assert whole is not None
    assert (len(whole), whole.n_all) == (20, 20)
    monkeypatch.setattr(labelled_sets, "MOST_STRUCTURES", 7)
    found = held_out_set(saved.state, context, "test", seed=0)
    assert found is not None
    assert (len(found), found.n_all) == (7, 20)
    places = [frame.index for frame in found.frames]
    assert np.array_equal(found.energies, whole.energies[places])


def test_batches_have_the_labels_of_the_log(saved: SavedCampaign) -> None:
    keys = saved.state.keys_of_round(1, "train")
    found = batch_set(saved.state, keys)
    assert found is not None
    assert found.energies.tolist() == [saved.state.labels[key]["energy"] for key in keys]
    assert batch_set(saved.state, []) is None
