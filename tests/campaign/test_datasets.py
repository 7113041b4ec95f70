"""What the files of a campaign hold: samples, isolated atoms, and what is held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.datasets import choose_split, read_given_sets
from labelwise.campaign.loop import run_campaign
from labelwise.campaign.state import read_state
from labelwise.errors import ArgumentError, LabelError
from labelwise.structures import hash_structure, write_structures
from labelwise.structures.identity import hash_geometry
from tests.campaign.building import make_config, make_structures, write_campaign, write_data

LONE = {"H": -30.0, "C": -30.5, "O": -31.0}


def lone_atoms(**changed: float) -> list[Atoms]:
    """Isolated atoms without forces."""
    energies = {**LONE, **changed}
    return [
        Atoms(z, info={"REF_energy": e, "config_type": "IsolatedAtom"}) for z, e in energies.items()
    ]


def add(file: Path, structures: list[Atoms]) -> None:
    write_structures(file, [*structures, *read(file, ":")])


def config_of(folder: Path, **sections: dict[str, Any]) -> CampaignConfig:
    return CampaignConfig.model_validate(make_config(folder, **sections))


def test_isolated_atoms_are_reference_energies_and_in_no_set(tmp_path: Path) -> None:
    write_data(tmp_path)
    for name in ("train", "valid", "test"):
        add(tmp_path / f"{name}.extxyz", lone_atoms())
    given = read_given_sets(tmp_path, config_of(tmp_path), {})
    assert [len(each) for each in (given.train, given.valid, given.test)] == [4, 4, 4]
    assert given.isolated_atoms == {1: -30.0, 6: -30.5, 8: -31.0}
    assert len(given.lone) == 6
    held = config_of(tmp_path, data={"valid": {"fraction": 0.5}})
    assert len(choose_split(tmp_path, held)["valid"]) == 2


def test_isolated_atoms_that_contradict_each_other(tmp_path: Path) -> None:
    write_data(tmp_path)
    add(tmp_path / "train.extxyz", lone_atoms())
    write_structures(tmp_path / "lone.extxyz", lone_atoms(C=-28.0))
    data = {"isolated_atoms": str(tmp_path / "lone.extxyz")}
    with pytest.raises(LabelError, match="an isolated atom of C has"):
        read_given_sets(tmp_path, config_of(tmp_path, data=data), {})


def test_structures_of_several_heads_are_refused(tmp_path: Path) -> None:
    write_data(tmp_path)
    for role in ("train", "test"):
        structures = read(tmp_path / f"{role}.extxyz", ":")
        for atoms in structures:
            atoms.info["head"] = f"level of {role}"
        write_structures(tmp_path / f"{role}.extxyz", structures)
    with pytest.raises(ArgumentError, match=r"data\.valid and data\.test structures name 2"):
        read_given_sets(tmp_path, config_of(tmp_path), {})


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


def test_partial_labels_are_trained_on_and_held_against(data: Path, tmp_path: Path) -> None:
    """Energies alone and forces alone: refused unless asked for, and then used."""
    train = make_structures(4)
    del train[0].arrays["REF_forces"], train[1].info["REF_energy"]
    write_structures(tmp_path / "train.extxyz", train)
    files = {"train": [str(tmp_path / "train.extxyz")]}
    directory = write_campaign(tmp_path / "c", data, data=files, stop={"rounds": 1})
    with pytest.raises(LabelError, match="REF_forces' is missing"):
        run_campaign(directory)
    files["partial_labels"] = True
    write_campaign(directory, data, data=files, stop={"rounds": 1})
    run_campaign(directory)
    state = read_state(directory)
    assert [record.n_train for record in state.rounds] == [4, 7]
    (note, *_) = json.loads((directory / "round_001" / "finetune.json").read_text())["notes"]
    assert note == (
        "Partial labels: 1 of 7 training structures have no energy; 1 of 7 training structures "
        "have no forces."
    )
    assert all(np.isfinite(record.error("forces_rmse")) for record in state.rounds)


def test_held_out_structures_have_both_labels(tmp_path: Path) -> None:
    write_data(tmp_path)
    structures = make_structures(4)
    for atoms in structures:
        del atoms.arrays["REF_forces"]
    write_structures(tmp_path / "train.extxyz", structures)
    config = config_of(tmp_path, data={"partial_labels": True})
    assert len(read_given_sets(tmp_path, config, {}).train) == 4
    held = config_of(tmp_path, data={"partial_labels": True, "valid": {"fraction": 0.5}})
    with pytest.raises(LabelError, match="REF_forces' is missing"):
        read_given_sets(tmp_path, held, choose_split(tmp_path, held))
    write_structures(tmp_path / "valid.extxyz", structures)
    with pytest.raises(LabelError, match=r"valid\.extxyz.*REF_forces' is missing"):
        read_given_sets(tmp_path, config, {})
