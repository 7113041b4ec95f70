"""Tables of each split of the test sets, and energies per atom where sizes differ."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelwise.errors import ArgumentError
from labelwise.finetuning.metrics import ErrorTable
from labelwise.studies.comparison import tables
from labelwise.studies.comparison.curves import draw_pictures
from labelwise.studies.comparison.report import write_report
from labelwise.studies.comparison.results import (
    MEASURED,
    STRESS_ERRORS,
    CellResult,
    name_error,
    unit_of,
)
from labelwise.studies.comparison.series import compare_cells
from labelwise.studies.comparison.study import (
    check_study,
    dump_study,
    list_cells,
    override_study,
)
from labelwise.studies.comparison.study_file import StudyError
from tests.studies.comparison.building import make_cell, make_study
from tests.studies.comparison.test_report import cells_of, read_page, section
from tests.studies.comparison.test_study import content


def scaled(cell: CellResult, factor: float) -> dict[str, tuple[float, ...]]:
    return {error: tuple(factor * v for v in values) for error, values in cell.curves.items()}


def with_per_atom(cell: CellResult) -> CellResult:
    """Add energies per atom, which rank methods in another way than totals."""
    factor = 0.01 if cell.key.method == "random" else 0.03
    curves = {
        f"{name}_per_atom": tuple(factor * value for value in cell.curves[name])
        for name in ("energy_rmse", "energy_mae")
    }
    return replace(cell, curves={**cell.curves, **curves})


def with_splits(cell: CellResult) -> CellResult:
    """Add two splits; the second is three times as hard, for ``ntk-pv`` six times."""
    hard = 6.0 if cell.key.method == "ntk-pv" else 3.0
    splits = {"val_id": scaled(cell, 1.0), "val_ood": scaled(cell, hard)}
    return replace(cell, splits=splits)


STUDY = [with_splits(cell) for cell in make_study(("random", "ntk-pv"), n_rounds=4)]


def test_every_measured_error_is_one_of_the_table() -> None:
    assert {*MEASURED} <= {*ErrorTable.__dataclass_fields__}
    assert [unit_of(name) for name in MEASURED] == [
        "meV", "meV/Å", "meV", "meV/Å", "meV/atom", "meV/atom", "meV/Å³", "meV/Å³",
    ]  # fmt: skip
    with pytest.raises(ArgumentError, match="energy_errors is 'atom'; allowed are total, per-atom"):
        name_error("energy_rmse", "atom")
    with pytest.raises(ArgumentError, match="energy_errors is 'atom'"):
        compare_cells([], energy_errors="atom")


def test_tables_of_splits() -> None:
    comparison = compare_cells(STUDY)
    overall = {row["method"]: row for row in tables.make_errors_table(comparison).as_records()}
    rows = tables.make_splits_table(comparison).as_records()
    assert [(row["split"], row["method"]) for row in rows] == [
        ("val_id", "random"), ("val_id", "ntk-pv"), ("val_ood", "random"), ("val_ood", "ntk-pv"),
    ]  # fmt: skip
    for row in rows[:2]:
        own = {key: value for key, value in row.items() if key != "split"}
        assert own == overall[row["method"]]
    hard = rows[3]
    for name in ("auc_energy_rmse", "final_forces_mae"):
        assert hard[f"{name}_mean"] == pytest.approx(6 * overall["ntk-pv"][f"{name}_mean"])
        ratio = overall["ntk-pv"][f"{name}_ratio"]
        assert hard[f"{name}_ratio"] == pytest.approx(2 * ratio)
        assert hard[f"{name}_ratio_low"] < hard[f"{name}_ratio"] < hard[f"{name}_ratio_high"]
    assert comparison == compare_cells(STUDY)


def test_only_pools_that_have_a_split_are_in_its_table() -> None:
    cells = [cell if cell.key.pool == "natural-1" else replace(cell, splits={}) for cell in STUDY]
    rows = tables.make_splits_table(compare_cells(cells)).as_records()
    assert {row["n_cells"] for row in rows} == {2}
    assert {row["n_pools"] for row in rows} == {1}


def test_report_of_splits(tmp_path: Path) -> None:
    written = write_report(tmp_path, STUDY, title="t", with_pictures=False)
    assert tmp_path / "errors_by_split.csv" in written
    text = section(read_page(tmp_path), "Split val_ood")
    assert cells_of(text, "method")[2:] == [
        "AUC E, meV",
        "AUC F, meV/Å",
        "final E, meV",
        "final F, meV/Å",
    ]
    comparison = compare_cells(STUDY).in_split("val_ood")
    ratio = tables.ratio_of(comparison, comparison.series[1], "final", "forces_rmse").value
    assert re.fullmatch(rf"[\d.]+ ± [\d.]+ \({ratio:.2f}\)", cells_of(text, "ntk-pv")[-1])
    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert len(record["tables"]["errors_by_split"]) == 4
    curves = record["cells"][-1]["splits"]["val_ood"]["forces_rmse"]
    assert curves == pytest.approx([6 * v for v in STUDY[-1].curves["forces_rmse"]])
    plain = [replace(cell, splits={}) for cell in STUDY]
    write_report(tmp_path, plain, title="t", with_pictures=False)
    assert not (tmp_path / "errors_by_split.csv").exists()
    assert "By split" not in read_page(tmp_path)


def test_energies_per_atom_in_tables_and_page(tmp_path: Path) -> None:
    cells = [with_per_atom(cell) for cell in STUDY]
    write_report(tmp_path, cells, title="t", energy_errors="per-atom", with_pictures=False)
    page = read_page(tmp_path)
    assert "in meV/atom and meV/Å" in page
    assert "| AUC E, meV/atom | AUC F, meV/Å | final E, meV/atom | final F, meV/Å |" in page
    assert "E, meV |" not in page
    finals = np.array(
        [c.curves["energy_rmse_per_atom"][-1] for c in cells if c.key.method == "ntk-pv"]
    )
    mean = cells_of(section(page, "Errors on the test set"), "ntk-pv")[4]
    assert mean.strip("*").startswith(f"{finals.reshape(3, 2).mean():.2f} ± ")
    with (tmp_path / "errors.csv").open(encoding="utf-8", newline="") as stream:
        row = list(csv.DictReader(stream))[1]
    assert "final_energy_rmse_mean" not in row
    assert float(row["final_energy_rmse_per_atom_mean"]) == pytest.approx(finals.mean())
    with (tmp_path / "round_gain.csv").open(encoding="utf-8", newline="") as stream:
        assert {row["error"] for row in csv.DictReader(stream)} == {
            "energy_rmse_per_atom", "forces_rmse", "energy_mae_per_atom", "forces_mae",
        }  # fmt: skip
    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert record["energy_errors"] == "per-atom"
    assert {*record["cells"][0]["curves"]} == {*MEASURED} - {*STRESS_ERRORS}


def test_cells_that_lack_energies_per_atom_are_blank_and_named(tmp_path: Path) -> None:
    write_report(tmp_path, STUDY, title="t", energy_errors="per-atom", with_pictures=False)
    page = read_page(tmp_path)
    row = cells_of(section(page, "Errors on the test set"), "ntk-pv")
    assert row[2] == "" and row[3] != ""
    assert "12 campaigns with errors that are not finite, so that cells are blank" in page


def test_pictures_say_per_atom() -> None:
    pytest.importorskip("matplotlib")
    cells = [with_per_atom(make_cell("p", method, 0)) for method in ("random", "ntk-pv")]
    total = draw_pictures(compare_cells(cells))
    found = draw_pictures(compare_cells(cells, energy_errors="per-atom"))
    assert {*found} == {*total}
    assert b"atom$^{-1}$" in found["curves.svg"]
    assert b"atom$^{-1}$" not in total["curves.svg"]


def test_a_study_passes_its_settings_to_every_campaign(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "split_key": "split",
        "fixed_forces": "exclude",
        "energy_errors": "per-atom",
        "finetune": {"loss_fixed_forces": "exclude"},
    }
    study = check_study(content(**changes))
    assert "split_key: split" in dump_study(study)
    for cell in list_cells(study, tmp_path, Path()):
        config = cell.config
        assert config.data.test.split_key == "split"
        assert config.measure.fixed_forces == "exclude"
        assert config.measure.energy_errors == "per-atom"
        assert config.finetune.loss_fixed_forces == "exclude"
    usual = list_cells(check_study(content()), tmp_path, Path())[0].config
    assert usual.data.test.split_key is None
    assert (usual.measure.fixed_forces, usual.measure.energy_errors) == ("count", "total")
    assert math.isfinite(usual.finetune.huber_delta)


def test_errors_of_a_study_changed_by_hand() -> None:
    study = check_study(content(fixed_forces="exclude"))
    changed = override_study(
        study, {"data.test.split_key": "split", "measure.energy_errors": "per-atom"}
    )
    assert (changed.split_key, changed.energy_errors) == ("split", "per-atom")
    assert changed.fixed_forces == "exclude"
    assert changed.changes == []
    assert override_study(study, {"fixed_forces": "count"}).fixed_forces == "count"
    assert override_study(study, {}) == study
    with pytest.raises(StudyError, match="fixed_forces"):
        override_study(study, {"fixed_forces": "zero"})
