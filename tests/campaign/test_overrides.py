"""Settings that are given with a run stay for the runs to come."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelwise.campaign.config import read_config
from labelwise.campaign.errors import ChangedInputsError, ConfigError
from labelwise.campaign.loop import RunOptions, override_campaign
from labelwise.campaign.yaml_files import OVERRIDES
from labelwise.cli import main
from tests.campaign.building import write_campaign, write_data


def test_they_are_kept_and_added_to(tmp_path: Path) -> None:
    directory = write_campaign(tmp_path / "c", tmp_path)
    override_campaign(directory, {"finetune.max_updates": 7})
    override_campaign(directory, {"stop.rounds": 5, "finetune.learning_rate": "1e-3"})
    config = read_config(directory)
    assert (config.finetune.max_updates, config.finetune.learning_rate) == (7, 1e-3)
    assert config.stop.rounds == 5


def test_wrong_ones_change_nothing(tmp_path: Path) -> None:
    directory = write_campaign(tmp_path / "c", tmp_path)
    with pytest.raises(ConfigError, match=r"finetune.max_update: unknown key; did you mean"):
        override_campaign(directory, {"finetune.max_update": 7})
    assert not (directory / OVERRIDES).exists()
    override_campaign(directory, {"stop.rounds": 5})
    with pytest.raises(ConfigError, match=r"stop.rounds"):
        override_campaign(directory, {"stop.rounds": -1})
    assert read_config(directory).stop.rounds == 5


def test_a_campaign_that_has_begun_keeps_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path / "data", labelled=False)
    directory = write_campaign(tmp_path / "c", tmp_path / "data", labeller={"kind": "files"})
    run = ["campaign", "run", str(directory), "--quiet", "--no-report"]
    assert main([*run, "selection.rule=random", "stop.rounds=1"]) == 4
    assert read_config(directory).selection.rule == "random"
    assert main([*run, "selection.rule=pv"]) == 1
    assert "selection.rule" in capsys.readouterr().err
    assert read_config(directory).selection.rule == "random"
    with pytest.raises(ChangedInputsError):
        override_campaign(directory, {"selection.rule": "pv"})
    override_campaign(directory, {"selection.rule": "pv"}, RunOptions(accept_changes=True))
    assert read_config(directory).selection.rule == "pv"
    assert main([*run, "selection.rule"]) == 1
    assert "write KEY=VALUE" in capsys.readouterr().err
