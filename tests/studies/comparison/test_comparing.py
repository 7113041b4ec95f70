"""Whole comparisons: every preset on a small pool, from its study to its tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from labelwise.structures import write_structures
from labelwise.studies.comparison import costs
from labelwise.studies.comparison.adjusting import adjust_study
from labelwise.studies.comparison.comparing import report_study, run_study
from labelwise.studies.comparison.costs import COSTS
from labelwise.studies.comparison.presets import make_preset
from labelwise.studies.comparison.study import check_study, list_cells
from tests.campaign.building import make_structures, write_data
from tests.potentials.models import make_mace
from tests.studies.comparison.pool_building import write_folder

TABLES = {
    "reaction-natural": ("errors", "round_gain", "cost", "committees", "curves"),
    "reaction-mixed": ("errors", "round_gain", "cost", "committees", "curves"),
    "pool-bias": ("errors", "round_gain", "cost", "committees", "errors_by_pool"),
    "scratch": ("errors", "scratch", "cost"),
    "energy-weight": ("errors", "round_gain", "cost"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_folder(folder / "small", n_pool=48)
    write_folder(folder / "large", n_pool=204)
    torch.save(make_mace(), folder / "small.model")
    return folder


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.thorough
@pytest.mark.parametrize("name", TABLES)
def test_every_preset_runs_to_its_tables(name: str, files: Path, tmp_path: Path) -> None:
    model = {"path": str(files / "small.model"), "trust": True, "device": "cpu"}
    data = [str(files / ("large" if name == "reaction-mixed" else "small"))]
    study = make_preset(name, tmp_path, model=model, data=data, seeds=[0], rounds=1, shift="path")
    content = adjust_study(study, n_updates=2)
    run = run_study(content, tmp_path, tmp_path, n_processes=1)
    assert run.failures == {}
    assert run.n_cells == len(content.methods) * len(content.pools)
    written = report_study(content, tmp_path, tmp_path)
    assert written[0] == tmp_path / "results.md"
    for table in TABLES[name]:
        assert tmp_path / f"{table}.csv" in written, table
    rows = read_table(tmp_path / "errors.csv")
    assert {row["method"] for row in rows} == {*content.methods}
    page = written[0].read_text(encoding="utf-8")
    assert "updates a round: 2 at most" in page
    known = json.loads((tmp_path / COSTS).read_text())
    assert {*known} == {cell.key.method for cell in list_cells(content, tmp_path, tmp_path)}
    assert all(path.stat().st_size > 0 for path in written)


def test_costs_are_measured_once(
    files: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"path": str(files / "small.model"), "trust": True, "device": "cpu"}
    study = make_preset(
        "reaction-natural",
        tmp_path,
        model=model,
        data=[str(files / "small")],
        methods=["random", "ntk-pv"],
        seeds=[0],
        rounds=1,
    )
    study = adjust_study(study, n_updates=1)
    run_study(study, tmp_path, tmp_path, n_processes=1)
    said.clear()
    report_study(study, tmp_path, tmp_path)
    before = (tmp_path / COSTS).read_bytes()
    report_study(study, tmp_path, tmp_path)
    assert said == ["measuring what each method costs"]
    assert (tmp_path / COSTS).read_bytes() == before
    cost = json.loads(before)["ntk-pv"]["cost"]
    assert (cost["n_forward"], cost["n_backward"]) == (1.0, 1.0)
    (tmp_path / COSTS).unlink()
    with monkeypatch.context() as patched:  # tables alone need no model
        patched.setattr(costs, "load_potential", pytest.fail)
        report_study(study, tmp_path, tmp_path, measures=False)
    assert said[1].endswith("are not known: --tables-only measures nothing")
    assert not (tmp_path / COSTS).exists()


def test_energies_that_labels_do_not_determine_are_named(tmp_path: Path) -> None:
    """Water alone to train on, at another level of theory, and other molecules to test on."""
    write_data(tmp_path)
    structures = make_structures(40, seed=5)
    water = [atoms for atoms in structures if atoms.get_chemical_formula() == "H2O"]
    write_structures(tmp_path / "train.extxyz", water[:4])
    write_structures(tmp_path / "pool.extxyz", water[4:10])
    study = check_study(
        {
            "model": {"path": str(tmp_path / "small.model"), "trust": True, "device": "cpu"},
            "pools": {
                "water": {
                    "pool": ["pool.extxyz"],
                    "train": ["train.extxyz"],
                    "test": {"files": ["test.extxyz"]},
                }
            },
            "methods": {"random": {"rule": "random"}},
            "seeds": [0],
            "rounds": 1,
            "selection": {"batch_size": 2},
            "finetune": {"max_updates": 2, "batch_size": 2},
        }
    )
    run_study(study, tmp_path / "out", tmp_path, n_processes=1)
    written = report_study(study, tmp_path / "out", tmp_path)
    page = written[0].read_text(encoding="utf-8")
    assert "In 2 rounds (water random seed 0 round 0, water random seed 0 round 1), test" in page
    assert "The fits of 2 rounds (water random seed 0 round 0" in page
    assert "The labelled set has 1 composition" in page
    cell = json.loads((tmp_path / "out" / "results.json").read_text())["cells"][0]
    assert cell["curves"]["energy_rmse"] == [None, None]
    assert all(value > 0 for value in cell["curves"]["forces_rmse"])
