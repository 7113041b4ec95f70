"""A study of slabs from its campaigns to its tables: fixed atoms, splits, energies per atom."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from labelwise.studies.comparison.cells import read_results
from labelwise.studies.comparison.comparing import report_study, run_study
from labelwise.studies.comparison.study import check_study, list_cells
from tests.campaign.slabs import write_slabs

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


def test_a_study_of_slabs(tmp_path: Path) -> None:
    write_slabs(tmp_path, n_pool=8)
    pool = {"pool": ["pool.extxyz"], "train": ["train.extxyz"]}
    pool |= {"valid": {"files": ["valid.extxyz"]}, "test": {"files": ["test.extxyz"]}}
    settings = {
        "model": {"path": "small.model", "trust": True, "device": "cpu"},
        "pools": {"metals": pool},
        "methods": ["random", "activation-lcmd"],
        "seeds": [0],
        "rounds": 1,
        "selection": {"batch_size": 2},
        "finetune": {"max_updates": 4, "batch_size": 2, "max_validations": 2},
        "split_key": "split",
        "fixed_forces": "exclude",
        "energy_errors": "per-atom",
    }
    study = check_study(settings)
    run = run_study(study, tmp_path / "out", tmp_path, n_processes=1)
    assert run.failures == {}
    report_study(study, tmp_path / "out", tmp_path)
    with (tmp_path / "out" / "errors_by_split.csv").open(encoding="utf-8", newline="") as stream:
        rows = {(row["split"], row["method"]): row for row in csv.DictReader(stream)}
    assert {*rows} == {(s, m) for s in ("val_id", "val_ood") for m in settings["methods"]}
    for cell in read_results(list_cells(study, tmp_path / "out", tmp_path)):
        line = (tmp_path / "out/cells/metals" / cell.key.method / "seed_0/rounds.jsonl").read_text()
        record = json.loads(line.splitlines()[-1])
        assert record["errors"]["test"]["n_force_atoms"] < record["errors"]["test"]["n_atoms"]
        for split, errors in record["split_errors"].items():
            row = rows[split, cell.key.method]
            wanted = errors["energy_rmse_per_atom"]
            assert cell.splits[split]["energy_rmse_per_atom"][-1] == wanted
            assert float(row["final_energy_rmse_per_atom_mean"]) == pytest.approx(wanted)
            assert float(row["final_forces_rmse_mean"]) == pytest.approx(errors["forces_rmse"])
    page = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert "errors without the forces of fixed atoms" in page
    assert "### Split val_ood" in page
    assert any("meV/atom" in line for line in page.splitlines() if line.startswith("|"))

    # How energies are shown needs no campaign to run again.
    total = check_study({**settings, "energy_errors": "total"})
    assert run_study(total, tmp_path / "out", tmp_path, n_processes=1).n_found == 2
    report_study(total, tmp_path / "out", tmp_path)
    page = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert not any("meV/atom" in line for line in page.splitlines() if line.startswith("|"))
