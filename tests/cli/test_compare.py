"""``labelwise compare`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from labelwise.cli import main
from labelwise.cli.compare import RESOLVED_FILE
from tests.campaign.building import write_data
from tests.potentials.models import make_mace
from tests.studies.comparison.pool_building import write_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    write_folder(folder / "reactions", n_pool=48)
    torch.save(make_mace(), folder / "small.model")
    return folder


def write_study(folder: Path, data: Path, **changes: Any) -> Path:
    study = {
        "title": "A small study",
        "model": {"path": str(data / "small.model"), "trust": True, "device": "cpu"},
        "pools": {
            "small": {
                "pool": [str(data / "pool.extxyz")],
                "train": [str(data / "train.extxyz")],
                "valid": {"files": [str(data / "valid.extxyz")]},
                "test": {"files": [str(data / "test.extxyz")]},
            }
        },
        "methods": ["random", "ntk-pv"],
        "seeds": [0, 1],
        "selection": {"batch_size": 3, "n_reserve": 2},
        "finetune": {"max_updates": 2, "batch_size": 2, "max_validations": 1},
        "rounds": 1,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**study, **changes}), encoding="utf-8")
    return path


def test_a_study_from_its_file_to_its_tables(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path, data)
    assert main(["compare", str(path), "-j", "2"]) == 0
    printed = capsys.readouterr()
    assert "4 campaigns of 2 rounds: methods random, ntk-pv; pools small; seeds 0, 1" in printed.err
    assert str(tmp_path / "results.md") in printed.out
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert page.startswith("# A small study")
    assert "ntk-pv" in page
    assert str(tmp_path / "report.html") in printed.out
    assert "A small study" in (tmp_path / "report.html").read_text(encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").rglob("*")}

    assert main(["compare", str(tmp_path), "--tables-only", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["title"] == "A small study"
    assert main(["compare", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").rglob("*")} == before

    write_study(tmp_path, data, selection={"batch_size": 2})
    assert main(["compare", str(tmp_path)]) == 1
    assert "selection.batch_size 3 → 2" in capsys.readouterr().err


def test_a_page_is_not_worth_a_study(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path, data, methods=["random"], seeds=[0])
    assert main(["compare", str(path), "--no-report", "--quiet"]) == 0
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "report.html").mkdir()
    assert main(["compare", str(path), "--tables-only", "--quiet"]) == 0
    assert "no page of the study" in capsys.readouterr().err


def test_a_part_of_a_study(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, data)
    part = [
        "--methods",
        "random",
        "--seeds",
        "7",
        "--rounds",
        "3",
        "--max-updates",
        "5",
        "--thin",
        "2",
    ]
    assert main(["compare", str(tmp_path), *part, "--dry-run"]) == 0
    printed = capsys.readouterr().err
    assert "1 campaigns of 4 rounds" in printed
    assert "pools: one structure in 2" in printed
    assert not (tmp_path / "cells").exists()
    words = ["seeds=[7]", "stop.rounds=3", "finetune.max_updates=5"]
    assert main(["compare", str(tmp_path), *words, "--methods", "random", "--dry-run"]) == 0
    assert "1 campaigns of 4 rounds" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "finetune.max_update=5"]) == 1
    assert "did you mean 'max_updates'" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "measure.energy_errors=per_atom"]) == 1
    assert "'total' or 'per-atom'" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "--methods", "random,ntk-lcmd"]) == 1
    assert "ntk-lcmd not in the study" in capsys.readouterr().err


def test_a_failed_campaign_is_named_and_the_others_are_reported(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path, data, methods=["random"], seeds=[0])
    study = yaml.safe_load(path.read_text())
    broken = {**study["pools"]["small"], "pool": [str(data / "missing.extxyz")]}
    study["pools"]["broken"] = broken
    path.write_text(yaml.safe_dump(study))
    assert main(["compare", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert "1 of 2 campaigns failed" in printed
    assert "missing.extxyz" in printed
    assert "random" in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_a_preset_scaled_to_a_budget_stays_as_it_was_scaled(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "compare",
        "--preset",
        "reaction-natural",
        "--data",
        str(data / "reactions"),
        "--model",
        str(data / "small.model"),
        "--trust-model",
        "--device",
        "cpu",
        "--methods",
        "random,ntk-pv",
        "--budget",
        "1s",
        "--out",
        str(tmp_path),
        "--dry-run",
    ]
    assert main(command) == 0
    printed = capsys.readouterr().err
    assert "updates a round" in printed
    first = (tmp_path / RESOLVED_FILE).read_bytes()
    assert main(command) == 0
    assert (tmp_path / RESOLVED_FILE).read_bytes() == first
    other = [*command[:-1], "--seeds", "3", "--dry-run"]
    assert main(other) == 1
    assert "is another study" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare"], "give a study.yaml, or --preset"),
        (["compare", "study.yaml", "--preset", "scratch"], "not both"),
        (["compare", "nothing.yaml"], "does not exist"),
        (["compare", "--preset", "nope"], "preset is 'nope'"),
        (["compare", "--preset", "scratch", "--seeds", "a"], "give integers"),
        (["compare", "--preset", "pool-bias", "--strength", "x"], "give numbers"),
        (["compare", "--preset", "scratch", "--methods", "ntk-pvv", "--model", "demo"], "ntk-pv"),
    ],
)
def test_mistakes_are_explained(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
