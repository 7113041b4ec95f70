from __future__ import annotations

import numpy as np
import pytest

from labelwise.campaign.bench import Bench
from labelwise.campaign.datasets import read_given_sets
from labelwise.report.campaign import labelled_sets
from labelwise.report.campaign.labelled_sets import batch_set, describe_content, held_out_set
from labelwise.report.campaign.saved import SavedCampaign
from tests.campaign.building import make_structures


@pytest.fixture
def bench(saved: SavedCampaign) -> Bench:
    return Bench(read_given_sets(saved.state.directory, saved.config, {}), {})


def test_a_large_set_is_drawn_from(
    saved: SavedCampaign, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = held_out_set(saved.state, bench, "test", seed=0)
    assert whole is not None
    assert (len(whole), whole.n_all) == (20, 20)
    monkeypatch.setattr(labelled_sets, "MOST_STRUCTURES", 7)
    found = held_out_set(saved.state, bench, "test", seed=0)
    assert found is not None
    assert (len(found), found.n_all) == (7, 20)
    places = [frame.index for frame in found.frames]
    assert np.array_equal(found.energies, whole.energies[places])
    assert found.contents == tuple(whole.contents[i] for i in places)


def test_batches_have_the_labels_of_the_log(saved: SavedCampaign) -> None:
    keys = saved.keys_of_round(1)
    found = batch_set(saved.state, keys)
    assert found is not None
    assert found.energies.tolist() == [saved.state.labels[key]["energy"] for key in keys]
    assert batch_set(saved.state, []) is None


def test_content_is_what_a_model_looks_at() -> None:
    atoms = make_structures(1)[0]
    content = describe_content(atoms)
    relabelled = atoms.copy()
    relabelled.info["REF_energy"] = 0.0
    assert describe_content(relabelled) == content
    charged = atoms.copy()
    charged.info["charge"] = 1
    moved = atoms.copy()
    moved.positions[0, 0] += 0.01
    assert len({content, describe_content(charged), describe_content(moved)}) == 3
