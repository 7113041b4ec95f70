"""Stress in comparisons: shown where test sets have labels of it, and nowhere else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from labelwise.cli import main
from labelwise.finetuning.metrics import round_gain
from labelwise.pages.document import Chart, Choice
from labelwise.studies.comparison.page.charts import ComparisonCharts
from labelwise.studies.comparison.page.facts import list_facts
from labelwise.studies.comparison.page.naming import Namer
from labelwise.studies.comparison.record import read_record
from labelwise.studies.comparison.report import write_report
from labelwise.studies.comparison.results import CellResult
from labelwise.studies.comparison.series import compare_cells
from labelwise.studies.comparison.tables import list_unknown, make_errors_table, make_gain_table
from tests.campaign.test_stress import make_files
from tests.studies.comparison.building import make_study
from tests.studies.comparison.page.building import COSTS, read_csv

METHODS = ("random", "ntk-lcmd")
_FACTORS = {"stress_rmse": 0.01, "stress_mae": 0.005}


def with_stress(cell: CellResult) -> CellResult:
    """Add stress errors, of curves of their own."""
    own = {
        error: tuple(factor * value**1.1 for value in cell.curves["forces_rmse"])
        for error, factor in _FACTORS.items()
    }
    return replace(cell, curves={**cell.curves, **own})


def make_cells(pools: Sequence[str] = ("alloy", "oxide", "water")) -> list[CellResult]:
    """Three pools with two seeds; water has no stress labels."""
    cells = make_study(METHODS, pools=pools, n_rounds=4)
    return [cell if cell.key.pool == "water" else with_stress(cell) for cell in cells]


def curves_of(cells: Sequence[CellResult], method: str) -> np.ndarray:
    """Return the stress RMSE of (2 pools, 2 seeds, rounds)."""
    found = [c for c in cells if c.key.method == method and "stress_rmse" in c.curves]
    return np.array([cell.curves["stress_rmse"] for cell in found]).reshape(2, 2, -1)


def test_pools_without_labels_of_stress_are_in_no_mean_of_it() -> None:
    cells = make_cells()
    comparison = compare_cells(cells)
    (row,) = [r for r in make_errors_table(comparison).as_records() if r["method"] == "ntk-lcmd"]
    method, reference = curves_of(cells, "ntk-lcmd"), curves_of(cells, "random")
    area, other = method[..., 1:].sum(-1), reference[..., 1:].sum(-1)
    assert row["auc_stress_rmse_mean"] == pytest.approx(area.mean())
    assert row["auc_stress_rmse_se"] == pytest.approx(area.mean(1).std(ddof=1) / 2**0.5)
    assert row["auc_stress_rmse_ratio"] == pytest.approx(np.exp(np.log(area / other).mean()))
    assert row["final_stress_mae_mean"] == pytest.approx(method[..., -1].mean() / 2)
    (gain,) = [
        r
        for r in make_gain_table(comparison).as_records()
        if (r["error"], r["pool"]) == ("stress_rmse", "all")
    ]
    pairs = zip(method.reshape(4, -1), reference.reshape(4, -1), strict=True)
    wanted = np.mean([round_gain(m[1:], r[1:]) for m, r in pairs])
    assert (gain["gain_mean"], gain["n_pairs"]) == (pytest.approx(wanted), 4)
    assert list_unknown(comparison) == []  # what was not asked is no failure


def test_other_numbers_do_not_change() -> None:
    plain = make_study(METHODS, pools=("alloy", "oxide", "water"), n_rounds=4)
    table = make_errors_table(compare_cells(plain)).as_records()
    for row, other in zip(
        make_errors_table(compare_cells(make_cells())).as_records(), table, strict=True
    ):
        assert row.items() > other.items()
        assert all("stress" in key for key in row.keys() - other.keys())


def test_files_and_page_show_it(tmp_path: Path) -> None:
    write_report(tmp_path, make_cells(), COSTS, title="Solids", with_pictures=False)
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "in meV, meV/Å and meV/Å³." in text
    assert "| AUC S, meV/Å³ | final E, meV | final F, meV/Å | final S, meV/Å³ |" in text
    assert "Ratio of AUC E, AUC F and AUC S to random" in text
    assert "| S RMSE | S MAE |" in text
    rows = {row["pool"]: row for row in read_csv(tmp_path / "errors_by_pool.csv")}
    assert rows["oxide"]["final_stress_rmse_mean"]
    assert rows["water"]["final_stress_rmse_mean"] == ""
    record = read_record(tmp_path)
    assert record.comparison == compare_cells(make_cells())
    assert [fact.label for fact in list_facts(record)][:3] == [
        "Best on forces",
        "Best on energies",
        "Best on stress",
    ]
    charts = ComparisonCharts(record.comparison, Namer())
    *_, panel = charts.draw_curves()
    assert isinstance(panel, Choice)
    assert [name for name, _ in panel.options][:3] == [
        "mean of all pools, RMSE",
        "alloy, RMSE",
        "oxide, RMSE",
    ]
    chart = panel.options[0][1]
    assert isinstance(chart, Chart)
    assert chart.y.label == "stress RMSE / meV Å⁻³"
    means = curves_of(make_cells(), "ntk-lcmd").mean(axis=(0, 1))
    (shown,) = [np.asarray(each.y) for each in chart.series if each.name == "ntk-lcmd"]
    np.testing.assert_allclose(shown, means, rtol=1e-6)


def test_a_split_may_have_stress_where_the_others_have_none(tmp_path: Path) -> None:
    cells = make_study(METHODS, pools=("water",), n_rounds=4)
    retained = [replace(c, splits={"retained": with_stress(c).curves}) for c in cells]
    write_report(tmp_path, retained, title="Both", with_pictures=False)
    (first, *_) = read_csv(tmp_path / "errors_by_split.csv")
    assert (first["split"], bool(first["final_stress_rmse_mean"])) == ("retained", True)
    (row, *_) = read_csv(tmp_path / "errors.csv")
    assert {"split", *row} == first.keys()
    assert row["final_stress_rmse_mean"] == ""


def test_pictures_have_a_panel_for_it(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    cells = make_study(METHODS, pools=("alloy",), n_rounds=3)
    write_report(tmp_path / "with", [with_stress(cell) for cell in cells], title="S")
    write_report(tmp_path / "without", cells, title="S")
    for name in ("curves.svg", "ratios.svg"):
        sizes = [
            float((tmp_path / kind / name).read_text().split('width="')[1].split("pt")[0])
            for kind in ("with", "without")
        ]
        assert sizes[0] == pytest.approx(1.5 * sizes[1], rel=1e-3)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")
def test_campaigns_of_a_study_measure_it_and_committees_learn_it(tmp_path: Path) -> None:
    make_files(tmp_path)
    data = {role: {"files": [f"{role}.extxyz"]} for role in ("valid", "test")}
    study = {
        "model": {"path": "small.model", "trust": True, "device": "cpu"},
        "pools": {"copper": {"pool": ["pool.extxyz"], "train": ["train.extxyz"], **data}},
        "methods": {
            "random": {"rule": "random"},
            "committee": {"rule": "committee-f", "members": 2},
            "blind": {"rule": "committee-f", "members": 2, "finetune": {"stress_weight": 0.0}},
        },
        "selection": {"batch_size": 2},
        "finetune": {"max_updates": 4, "batch_size": 2},
        "seeds": [0],
        "rounds": 1,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    assert main(["compare", str(tmp_path), "--workers", "1", "--quiet"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert all(cell["curves"]["stress_rmse"][-1] > 0 for cell in results["cells"])
    models = [
        (tmp_path / f"cells/copper/{name}/seed_0/round_000/member_1.pt").read_bytes()
        for name in ("committee", "blind")
    ]
    assert models[0] != models[1]
    shutil.rmtree(tmp_path / "cells")
