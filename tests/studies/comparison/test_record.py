from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from labelwise.errors import ReadError
from labelwise.studies.comparison.record import read_record
from labelwise.studies.comparison.report import write_report
from labelwise.studies.comparison.series import compare_cells
from tests.studies.comparison.building import make_study
from tests.studies.comparison.page.building import COSTS


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    cells = make_study(("random", "ntk-lcmd", "committee-e"), n_rounds=3)
    notes = ["one", "two"]
    write_report(tmp_path, cells, COSTS, title="T", notes=notes, with_pictures=False)
    record = read_record(tmp_path)
    assert record.comparison == compare_cells(cells)
    assert (record.title, record.notes) == ("T", ("one", "two"))
    assert {cost.method: cost for cost in record.costs} == {cost.method: cost for cost in COSTS}
    seconds = sum(sum(cost.seconds.values()) for cell in cells for cost in cell.costs)
    assert record.hours == pytest.approx(seconds / 3600)


def test_what_is_missing_is_that_of_the_plan(study: Path) -> None:
    comparison = read_record(study).comparison
    assert comparison.missing == ("activation-lcmd, pool natural-3, seed 1",)
    assert comparison.unfinished == ("activation-lcmd, pool natural-2, seed 0",)
    assert comparison.odd == ("activation-lcmd, pool natural-1, seed 0 (3 rounds)",)
    assert (comparison.n_used, comparison.n_planned) == (21, 24)


def test_a_number_that_json_cannot_hold_is_not_known(single: Path, tmp_path: Path) -> None:
    content = json.loads((single / "results.json").read_text(encoding="utf-8"))
    content["cells"][1]["curves"]["forces_rmse"][2] = None
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    cell = read_record(tmp_path).comparison.cells[1]
    assert math.isnan(cell.curves["forces_rmse"][2])


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"results\.json does not exist.*--tables-only"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("cells"), "KeyError: 'cells'"),
        (lambda c: c.update(cells=3), "not iterable"),
        (lambda c: c["cells"][0].update(seed="one"), "invalid literal"),
        (lambda c: c.update(energy_errors="both"), "energy_errors is 'both'"),
        (lambda c: c["cells"].append(c["cells"][0]), "twice"),
        (lambda c: c.update(tables=[]), "AttributeError"),
    ],
)
def test_a_record_of_another_shape(single: Path, tmp_path: Path, change: Any, words: str) -> None:
    content = json.loads((single / "results.json").read_text(encoding="utf-8"))
    change(content)
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ReadError, match=f"not the record of a comparison .*{words}"):
        read_record(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1"])
def test_a_broken_record(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(ReadError, match="cannot be read"):
        read_record(tmp_path)


def test_a_list_is_no_record(tmp_path: Path, study: Path) -> None:
    shutil.copy(study / "results.md", tmp_path)
    (tmp_path / "results.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ReadError, match="not the record of a comparison"):
        read_record(tmp_path)
