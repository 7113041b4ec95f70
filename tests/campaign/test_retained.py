"""Campaigns that replay what the model was pretrained on, and measure what it forgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from labelwise.campaign.context import open_context
from labelwise.campaign.errors import LeakageError
from labelwise.campaign.loop import RunOptions, run_campaign
from labelwise.campaign.state import read_state
from labelwise.cli import main
from labelwise.errors import ArgumentError, LabelError
from labelwise.finetuning.pretraining_set import prepare_pretraining_set
from labelwise.potentials import load_potential
from labelwise.structures import iter_frames, write_structures
from tests.campaign.building import make_config, make_structures, result_of, write_campaign
from tests.campaign.zygote import Zygote
from tests.potentials.models import make_mace


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Structures without labels, for the model to label."""
    structures = make_structures(10, seed=5, labelled=False)
    write_structures(tmp_path / "replay.extxyz", structures[:7])
    write_structures(tmp_path / "retain.extxyz", structures[7:])
    return tmp_path


def sections_of(known: Path, *, weight: float = 1.0) -> dict[str, dict[str, Any]]:
    data = {
        role: {"files": [str(known / f"{role}.extxyz")], "labels": "model"}
        for role in ("replay", "retain")
    }
    return {"data": data, "finetune": {"replay_weight": weight}}


def test_what_is_retained_is_measured_in_each_round(
    data: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = {}
    for weight in (0.0, 30.0):
        sections = sections_of(known, weight=weight)
        sections["finetune"] |= {"max_updates": 24, "learning_rate": 0.005}
        directory = write_campaign(tmp_path / str(weight), data, **sections, stop={"rounds": 0})
        run_campaign(directory)
        (record,) = read_state(directory).rounds
        assert record.best_epoch
        errors[weight] = record.split_errors["retained"]["forces_rmse"]
        assert record.split_errors["retained"]["n_structures"] == 3
    assert 0 < errors[30.0] < 0.8 * errors[0.0]
    assert main(["campaign", "status", str(directory)]) == 0
    assert "retained: 3 structures" in capsys.readouterr().out


@pytest.mark.thorough
def test_a_campaign_that_replays_is_resumed(
    zygote: Zygote, data: Path, known: Path, tmp_path: Path
) -> None:
    sections = {**sections_of(known), "stop": {"rounds": 1}}
    whole = write_campaign(tmp_path / "whole", data, **sections)
    run = zygote.run(whole)
    assert run["code"] == 0
    for number in (run["n_boundaries"] // 3, run["n_boundaries"] - 12):
        directory = write_campaign(tmp_path / str(number), data, **sections)
        assert zygote.run(directory, kill_at=number, torn=True)["killed"]
        assert zygote.run(directory)["code"] == 0
        assert result_of(directory) == result_of(whole)


def test_another_replay_is_another_campaign(
    data: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_campaign(tmp_path / "c", data, **sections_of(known), stop={"rounds": 0})
    run_campaign(directory)
    write_structures(known / "replay.extxyz", make_structures(3, seed=6, labelled=False))
    assert main(["campaign", "run", str(directory), "--rounds", "1"]) == 1
    assert "replay.extxyz: other content" in capsys.readouterr().err


def test_mistakes_in_what_is_retained_show_before_anything_is_labelled(
    data: Path, known: Path, tmp_path: Path
) -> None:
    sections = sections_of(known)
    directory = write_campaign(tmp_path / "unlabelled", data, **sections)
    sections["data"]["retain"]["labels"] = "file"
    write_campaign(directory, data, **sections)
    with pytest.raises(LabelError, match=r"retain\.extxyz.*REF_energy"):
        run_campaign(directory)
    assert not (directory / "labels.jsonl").exists()
    sections["data"]["retain"] = {"files": [str(data / "train.extxyz")]}
    directory = write_campaign(tmp_path / "taught", data, **sections)
    with pytest.raises(ArgumentError, match="4 structures are retained"):
        run_campaign(directory)
    assert not (directory / "labels.jsonl").exists()


def test_what_is_retained_is_not_in_the_pool(data: Path, tmp_path: Path) -> None:
    """It would be chosen sooner or later, and trained on."""
    sections = {"data": {"retain": {"files": [str(data / "pool.extxyz@:2")], "labels": "model"}}}
    directory = write_campaign(tmp_path / "c", data, **sections)
    with pytest.raises(LeakageError, match=r"2 structures in common.*equals retained structure 0"):
        run_campaign(directory)
    assert not (directory / "labels.jsonl").exists()


@pytest.mark.thorough
def test_recipes_are_compared(data: Path, known: Path, tmp_path: Path) -> None:
    config = make_config(data)
    study = {
        "model": config["model"],
        "pools": {"small": config["data"] | sections_of(known)["data"]},
        "methods": {
            "random": {"rule": "random", "finetune": {"replay_weight": 0.0}},
            "replayed": {"rule": "random", "finetune": {"replay_weight": 30.0}},
        },
        "selection": config["selection"] | {"model": "pretrained"},
        "finetune": config["finetune"],
        "seeds": [0],
        "rounds": 1,
    }
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text(yaml.safe_dump(study))
    assert main(["compare", str(tmp_path / "study"), "--workers", "1", "--quiet"]) == 0
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    curves = {
        cell["method"]: cell["splits"]["retained"]["forces_rmse"] for cell in results["cells"]
    }
    assert curves["replayed"][-1] < curves["random"][-1]
    assert "### Split retained" in (tmp_path / "study" / "results.md").read_text()


def test_what_is_replayed_has_a_head_of_its_own(
    data: Path, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Round 1 goes on with round 0's model, whose heads are there already."""
    sections = sections_of(known)
    recipe = {"max_updates": 6, "learning_rate": 0.005, "start": "last", "replay_head": "pt_head"}
    directory = write_campaign(
        tmp_path / "c", data, **{**sections, "finetune": recipe}, stop={"rounds": 1}
    )
    run_campaign(directory)
    for number, record in enumerate(read_state(directory).rounds):
        model = load_potential(directory / f"round_{number:03d}" / "model.pt")
        assert (model.heads, model.head) == (("pt_head", "Default"), "Default")
        retained = prepare_pretraining_set(
            load_potential(data / "small.model", trust=True),
            [frame.atoms for frame in iter_frames([str(known / "retain.extxyz")])],
            labels="model",
        )
        expected = {
            head: retained.errors(load_potential(model.name, head=head)).forces_rmse
            for head in model.heads
        }
        assert record.split_errors["retained"]["forces_rmse"] == pytest.approx(expected["pt_head"])
        assert expected["pt_head"] != pytest.approx(expected["Default"])

    alone = {"finetune": {"replay_head": "pt_head"}}
    other = write_campaign(tmp_path / "other", data, **alone, stop={"rounds": 0})
    assert main(["campaign", "run", str(other)]) == 1
    assert "nothing is replayed" in capsys.readouterr().err


def test_a_run_that_reads_a_fit_again_knows_the_head_of_the_new_labels(
    data: Path, known: Path, tmp_path: Path
) -> None:
    """The model's only head is not called Default, and no head is configured."""
    torch.save(make_mace(heads=("pbe",)), tmp_path / "pbe.model")
    sections = {**sections_of(known), "finetune": {"max_updates": 2, "replay_head": "pt_head"}}
    sections["model"] = {"path": str(tmp_path / "pbe.model")}
    directory = write_campaign(tmp_path / "c", data, **sections, stop={"rounds": 0})
    run_campaign(directory)
    state = read_state(directory)
    again = open_context(state).model_of(state, 0)
    assert (again.heads, again.head) == (("pt_head", "pbe"), "pbe")
    run_campaign(directory, RunOptions(n_rounds=1))
    assert len(read_state(directory).rounds) == 2
