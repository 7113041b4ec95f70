from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelwise.campaign import pool_kernel
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.datasets import read_given_sets
from labelwise.campaign.pool_kernel import ROWS, choose_settings, represent_pool
from labelwise.campaign.saved import SavedCampaign
from labelwise.campaign.state import CampaignState, read_state
from labelwise.features.store import FeatureStore
from labelwise.kernels.building import build_kernels
from labelwise.potentials import load_potential
from labelwise.selection.rules.posterior_variance import posterior_variance
from labelwise.structures import read_structures
from tests.campaign.building import write_campaign

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


def make_context(state: CampaignState) -> CampaignContext:
    return CampaignContext(read_given_sets(state.directory, state.config, {}), {})


def test_variances_are_those_of_the_selection(
    saved: SavedCampaign, files: Path, tmp_path: Path
) -> None:
    state = saved.state
    found = represent_pool(state, make_context(state), tmp_path, [], seed=0)
    assert (found.n_given, found.n_points, found.n_pool) == (4, 28, 24)
    sets = [read_structures(files / f"{name}.extxyz") for name in ("train", "pool", "test")]
    potential = load_potential(files / "small.model", device="cpu", trust=True)
    train, pool, test = build_kernels(sets, potential)
    given = np.arange(4)
    for kernel, idx in ((pool, np.arange(4, 28)), (test, found.others["test"])):
        expected = posterior_variance(kernel, train).numpy()
        assert found.variances(idx, given) == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_of_a_large_pool_what_was_chosen_is_kept(
    saved: SavedCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_kernel, "MOST_POINTS", 18)
    chosen = [each.source for each in saved.candidates if each.fate != "reserve"]
    state = saved.state
    found = represent_pool(state, make_context(state), tmp_path, chosen, seed=0)
    assert found.n_points == max(18, 4 + len(chosen))
    assert set(chosen) <= set(found.place)


def test_rows_are_computed_once_and_only_for_what_is_new(
    saved: SavedCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = saved.state
    chosen = [each.source for each in saved.candidates]
    monkeypatch.setattr(pool_kernel, "MOST_POINTS", 4 + len(chosen))
    represent_pool(state, make_context(state), tmp_path, chosen, seed=0)
    few = len(FeatureStore.open(tmp_path / ROWS))
    monkeypatch.setattr(pool_kernel, "MOST_POINTS", 50_000)
    whole = represent_pool(state, make_context(state), tmp_path, chosen, seed=0)
    assert few < len(FeatureStore.open(tmp_path / ROWS)) == 4 + 24 + 4 + 20
    anew = represent_pool(state, make_context(state), tmp_path / "b", chosen, seed=0)
    idx, given = np.arange(28), np.arange(4)
    assert whole.variances(idx, given) == pytest.approx(anew.variances(idx, given), rel=1e-4)


@pytest.mark.parametrize(
    ("selection", "representation", "normalise"),
    [
        ({"rule": "random", "representation": "random"}, "ntk-e", "cosine"),
        ({"rule": "joint-pv"}, "ntk-e", "cosine"),
        ({"rule": "committee-f"}, "ntk-e", "cosine"),
        ({"rule": "pv", "representation": "activation", "normalise": "none"}, "activation", "none"),
        ({"rule": "lcmd", "shortlist": 10}, "ntk-e", "cosine"),
    ],
)
def test_the_kernel_is_that_of_the_rule_if_it_has_one(
    files: Path, tmp_path: Path, selection: dict[str, str], representation: str, normalise: str
) -> None:
    config = read_state(write_campaign(tmp_path / "c", files, selection=selection)).config
    found = choose_settings(config)
    found.check()
    assert (found.representation, found.resolved_normalise) == (representation, normalise)


def test_a_representation_without_a_model(files: Path, tmp_path: Path) -> None:
    pytest.importorskip("dscribe")
    directory = write_campaign(tmp_path / "c", files, selection={"representation": "soap"})
    state = read_state(directory)
    found = represent_pool(state, make_context(state), tmp_path / "r", [], seed=0)
    assert found.n_points == 28
    assert not (tmp_path / "r").exists()
