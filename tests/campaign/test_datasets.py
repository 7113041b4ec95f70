"""Which structures of the training files are held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelwise.campaign import CampaignConfig
from labelwise.campaign.datasets import choose_split, read_given_sets
from labelwise.structures import hash_structure, write_structures
from labelwise.structures.identity import hash_geometry
from tests.campaign.building import make_config, make_structures


@pytest.fixture
def config(tmp_path: Path) -> CampaignConfig:
    structures = make_structures(6)
    structures[1].info["total_charge"] = 1
    cation = structures[0].copy()
    cation.info["total_charge"] = 1
    write_structures(tmp_path / "mixed.extxyz", [*structures, cation])
    data = {"train": ["mixed.extxyz"], "valid": {"fraction": 0.3}, "test": {"fraction": 0.3}}
    return CampaignConfig.model_validate(make_config(tmp_path, data=data))


def test_charged_structures_are_held_out_by_themselves(
    tmp_path: Path, config: CampaignConfig
) -> None:
    split = choose_split(tmp_path, config)
    sets = read_given_sets(tmp_path, config, split)
    assert (len(sets.train), len(sets.valid), len(sets.test)) == (3, 2, 2)


def test_splits_of_earlier_versions_hold_out_what_they_did(
    tmp_path: Path, config: CampaignConfig
) -> None:
    frames = read_given_sets(tmp_path, config, {}).train
    charged, neutral = frames[1].atoms, frames[2].atoms
    assert hash_geometry(charged) != hash_structure(charged)
    split = {"valid": [hash_geometry(charged)], "test": [hash_structure(neutral)]}
    sets = read_given_sets(tmp_path, config, split)
    assert [frame.source.frame for frame in sets.valid] == [1]
    assert [frame.source.frame for frame in sets.test] == [2]
