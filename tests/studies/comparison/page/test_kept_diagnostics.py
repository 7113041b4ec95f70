from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelwise.cli import main
from labelwise.pages.document import Chart, Table
from labelwise.studies.comparison.page.kept_diagnostics import read_kept
from labelwise.studies.comparison.page.naming import Namer
from tests.campaign.building import write_data
from tests.studies.comparison.page.building import column_of, read_csv


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which ``labelwise geometry`` and ``calibrate`` wrote."""
    folder = tmp_path_factory.mktemp("kept")
    write_data(folder, n_pool=24)
    common = ["--quiet", "--device", "cpu", "--model", str(folder / "small.model")]
    common += ["--trust-model", "--representations", "activation,ntk-e", "--pool"]
    common += [str(folder / "pool.extxyz")]
    assert main(["geometry", *common, "--group-by", "number", "--out", str(folder / "g")]) == 0
    sets = ["--valid", str(folder / "valid.extxyz"), "--test", str(folder / "test.extxyz")]
    more = ["--n-repeats", "2", "--max-labels", "15", "--n-bins", "2", "--out", str(folder / "c")]
    assert main(["calibrate", *common, *sets, *more]) == 0
    return folder


def test_what_the_commands_wrote_is_shown(folder: Path) -> None:
    kept = read_kept(folder, Namer())
    assert kept.notes == ()
    (geometry,) = kept.kernels
    assert isinstance(geometry, Table)
    rows = {row["kernel"]: float(row["between"]) for row in read_csv(folder / "g" / "geometry.csv")}
    assert column_of(geometry, "between families") == pytest.approx(rows)
    chart, table = kept.reliability
    assert isinstance(chart, Chart)
    assert isinstance(table, Table)
    assert chart.band_name == "standard deviation over initial sets"
    rows = {row["kernel"]: float(row["nll"]) for row in read_csv(folder / "c" / "calibration.csv")}
    assert column_of(table, "NLL") == pytest.approx(rows)
    assert all(((series.y >= 0) & (series.y <= 1)).all() for series in chart.series)
    assert all(np.asarray(series.x)[0] == 0.05 for series in chart.series)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "geometry.json").write_text("{}", encoding="utf-8")
    (tmp_path / "x" / "calibration.json").write_text("{", encoding="utf-8")
    kept = read_kept(tmp_path, Namer())
    assert kept.kernels == kept.reliability == []
    first, second = kept.notes
    assert first.startswith("Not shown: geometry.json, which cannot be read")
    assert second.startswith("Not shown: x/calibration.json")
