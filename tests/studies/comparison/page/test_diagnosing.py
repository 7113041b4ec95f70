from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelwise.errors import LabelwiseWarning
from labelwise.kernels.building import build_kernels
from labelwise.pages.document import Chart, Choice, HeatMap, Table
from labelwise.potentials import load_potential
from labelwise.structures import read_structures
from labelwise.studies.comparison.diagnosis import measure_diagnosis
from labelwise.studies.comparison.inputs import SampleOptions
from labelwise.studies.comparison.page.diagnosis import DIAGNOSIS, Diagnosis, read_diagnosis
from labelwise.studies.comparison.page.naming import Namer
from labelwise.studies.comparison.record import StudyRecord, read_record
from labelwise.studies.diagnostics.calibration_metrics import DEFAULT_LEVELS
from labelwise.studies.diagnostics.geometry import mean_by_family

CPU = SampleOptions(device="cpu", trust_model=True)


def diagnose(record: StudyRecord, asked: SampleOptions = CPU) -> Diagnosis:
    measure_diagnosis(record, asked)
    return read_diagnosis(record.folder, Namer())


@pytest.fixture(scope="module")
def record(with_data: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    folder = tmp_path_factory.mktemp("copy") / "study"
    shutil.copytree(with_data, folder)
    return read_record(folder)


@pytest.fixture(scope="module")
def diagnosis(record: StudyRecord) -> Diagnosis:
    return diagnose(record)


def heat_maps(diagnosis: Diagnosis) -> dict[str, HeatMap]:
    choice = diagnosis.kernels[0]
    assert isinstance(choice, Choice)
    return {name: panel for name, panel in choice.options if isinstance(panel, HeatMap)}


def test_heat_maps_are_kernels_of_the_named_structures(
    record: StudyRecord, diagnosis: Diagnosis
) -> None:
    assert diagnosis.notes == ()
    found = heat_maps(diagnosis)
    assert list(found) == [
        *("ntk-e, families", "activation, families"),
        *("ntk-e, structures", "activation, structures"),
    ]
    heat_map = found["activation, structures"]
    assert heat_map.rows == heat_map.columns
    structures = read_structures(record.folder / "data" / "pool.extxyz")
    named = [structures[int(name.split(" · ")[1])] for name in heat_map.rows]
    formulas = [name.split(" · ")[0] for name in heat_map.rows]
    assert [atoms.get_chemical_formula() for atoms in named] == formulas
    potential = load_potential(record.folder / "data" / "small.model", device="cpu", trust=True)
    (kernel,) = build_kernels([named], potential, "activation")
    wanted = kernel.block64(slice(None), kernel, slice(None)).cpu().numpy()
    np.testing.assert_allclose(heat_map.values, wanted, atol=2e-6)
    families = found["activation, families"]
    codes = np.array([families.rows.index(formula) for formula in formulas])
    np.testing.assert_allclose(families.values, mean_by_family(wanted, codes), atol=2e-6)


def test_reliability_is_a_coverage(diagnosis: Diagnosis) -> None:
    chart, table = diagnosis.reliability
    assert isinstance(chart, Chart)
    assert chart.diagonal
    assert [(series.name, series.style) for series in chart.series] == [
        ("ntk-e", 1),
        ("activation", 2),
    ]
    for series in chart.series:
        np.testing.assert_allclose(np.asarray(series.x), DEFAULT_LEVELS)
        assert (np.diff(series.y) >= 0).all()
        assert 0 <= series.y[0] <= series.y[-1] <= 1
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["ntk-e", "activation"]


def test_what_was_computed_is_kept(record: StudyRecord, diagnosis: Diagnosis) -> None:
    folders = [record.folder / "report" / name for name in ("kernels", "reliability")]
    kept = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    assert len(kept) == 4
    again = diagnose(record)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for name, heat_map in heat_maps(again).items():
        np.testing.assert_array_equal(heat_map.values, heat_maps(diagnosis)[name].values)
    other = diagnose(record, replace(CPU, group_by="number", seed=1))
    assert "number" in heat_maps(other)["ntk-e, structures"].caption


def test_a_damaged_result_is_named(record: StudyRecord, diagnosis: Diagnosis) -> None:
    path = record.folder / "report" / "kernels" / "ntk-e.json"
    content = path.read_bytes()
    path.write_bytes(content[:100])
    try:
        found = diagnose(record)
    finally:
        path.write_bytes(content)
    assert found.kernels == []
    assert found.reliability != []
    assert found.notes[0].startswith("No kernels:")
    assert "ntk-e.json" in found.notes[0]
    del diagnosis


def test_without_data_there_is_a_reason(with_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(with_data, folder, ignore=shutil.ignore_patterns("report"))
    (folder / "data" / "pool.extxyz").unlink()
    found = diagnose(read_record(folder))
    assert found.kernels == found.reliability == []
    assert len(found.notes) == 1
    assert "pool.extxyz" in found.notes[0]


def test_without_a_model_there_is_a_reason(with_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(with_data, folder, ignore=shutil.ignore_patterns("report"))
    (folder / "data" / "small.model").unlink()
    with pytest.warns(LabelwiseWarning, match=r"no (kernels|reliability|ranking): .*small\.model"):
        found = diagnose(read_record(folder))
    assert found.kernels == found.reliability == []
    assert all("small.model" in note for note in found.notes)


def test_a_model_that_is_too_slow_is_left_alone(with_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(with_data, folder, ignore=shutil.ignore_patterns("report"))
    record = read_record(folder)
    slow = tuple(replace(cost, seconds_per_structure=5.0) for cost in record.costs)
    found = diagnose(replace(record, costs=slow))
    assert found.kernels == []
    assert "labelwise geometry" in found.notes[0]


def test_what_was_not_measured_is_named_with_its_command(tmp_path: Path) -> None:
    found = read_diagnosis(tmp_path, Namer())
    assert found.kernels == found.reliability == []
    (note,) = found.notes
    assert note == (
        f"No kernels: none were measured for the page; to have them: labelwise compare {tmp_path}."
    )
    (tmp_path / "report").mkdir()
    (tmp_path / DIAGNOSIS).write_text("{")
    (note,) = read_diagnosis(tmp_path, Namer()).notes
    assert "diagnosis.json cannot be read" in note


def test_methods_without_kernels(with_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(with_data, folder)
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    content["cells"] = [cell for cell in content["cells"] if cell["method"] == "random"]
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    found = diagnose(read_record(folder))
    assert found.notes == ("No kernels: no method of the study chooses by one.",)
