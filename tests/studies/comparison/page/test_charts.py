from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelwise.pages.document import Chart, Choice, Series
from labelwise.studies.comparison.page.charts import ComparisonCharts
from labelwise.studies.comparison.page.naming import Namer
from labelwise.studies.comparison.record import StudyRecord, read_record
from labelwise.studies.comparison.series import compare_cells
from tests.studies.comparison.building import make_cell, make_study
from tests.studies.comparison.page.building import as_number, read_csv


@pytest.fixture
def record(study: Path) -> StudyRecord:
    return read_record(study)


def iter_charts(panels: Sequence[Chart | Choice]) -> Iterator[tuple[str, Chart]]:
    for panel in panels:
        options = panel.options if isinstance(panel, Choice) else ((panel.title, panel),)
        for name, option in options:
            assert isinstance(option, Chart)
            yield name, option


def series_of(chart: Chart) -> dict[str, Series]:
    return {series.name: series for series in chart.series}


def draw(record: StudyRecord) -> ComparisonCharts:
    return ComparisonCharts(record.comparison, Namer())


def test_learning_curves_are_means_of_the_csv(record: StudyRecord, study: Path) -> None:
    charts = dict(iter_charts(draw(record).draw_curves()[1:]))
    chart = charts["natural-1, RMSE"]
    assert chart.y.label == "force RMSE / meV Å⁻¹"
    rows = [
        row
        for row in read_csv(study / "curves.csv")
        if (row["pool"], row["method"], row["error"]) == ("natural-1", "ntk-lcmd", "forces_rmse")
    ]
    values = np.array([[float(r["value"]) for r in rows if r["seed"] == s] for s in "01"])
    shown = series_of(chart)["ntk-lcmd"]
    np.testing.assert_allclose(shown.y, values.mean(axis=0), rtol=1e-6)
    spread = values.std(axis=0, ddof=1) / np.sqrt(2)
    assert shown.low is not None
    np.testing.assert_allclose(shown.low, values.mean(axis=0) - spread, rtol=1e-5)
    assert list(shown.x) == [10, 15, 20, 25, 30]
    assert chart.band_name == "standard error over seeds"


def test_methods_without_all_pools_are_not_in_the_mean() -> None:
    cells = [*make_study(("random",), pools=["a", "b"], n_rounds=3)]
    cells.append(make_cell("a", "ntk-lcmd", 0, n_rounds=3))
    charts = dict(iter_charts(ComparisonCharts(compare_cells(cells), Namer()).draw_curves()))
    mean = charts["mean of all pools, RMSE"]
    assert set(series_of(mean)) == {"random"}
    assert "for want of campaigns: ntk-lcmd." in mean.caption
    assert set(series_of(charts["a, RMSE"])) == {"random", "ntk-lcmd"}


def test_a_method_has_one_style(record: StudyRecord) -> None:
    charts = draw(record)
    panels = [*charts.draw_curves(), *charts.draw_ratios(), *charts.draw_split_curves()]
    styles: dict[str, set[int | None]] = {}
    for _, chart in iter_charts([*panels, *charts.draw_cost_against_gain(record.costs)]):
        for series in chart.series:
            styles.setdefault(series.name, set()).add(series.style)
    assert all(len(found) == 1 for found in styles.values())
    assert len({next(iter(found)) for found in styles.values()}) == len(styles) == 4


def test_splits_have_curves_of_their_own(record: StudyRecord) -> None:
    charts = dict(iter_charts(draw(record).draw_split_curves()[1:]))
    easy, hard = (series_of(charts[f"{name}, RMSE"])["random"] for name in ("val_id", "val_ood"))
    np.testing.assert_allclose(hard.y, 2 * easy.y, rtol=1e-5)


def test_one_seed_has_no_bands(single: Path) -> None:
    for _, chart in iter_charts(draw(read_record(single)).draw_curves()):
        assert chart.band_name == ""
        assert all(series.low is None and series.high is None for series in chart.series)


def test_ratios_are_those_of_the_csv(record: StudyRecord, study: Path) -> None:
    charts = dict(iter_charts(draw(record).draw_ratios()))
    chart = charts["AUC F, forces"]
    rows = {row["method"]: row for row in read_csv(study / "errors.csv")}
    for name, series in series_of(chart).items():
        assert series.x == (name,)
        assert series.y[0] == pytest.approx(as_number(rows[name], "auc_forces_rmse_ratio"))
    shown = series_of(chart)["ntk-lcmd"]
    assert shown.low is not None
    assert shown.low[0] == pytest.approx(as_number(rows["ntk-lcmd"], "auc_forces_rmse_ratio_low"))
    assert series_of(chart)["random"].low is None


def test_hopelessly_wide_intervals_are_named_in_place_of_drawn() -> None:
    cells = [make_cell("only", "random", seed, n_rounds=4) for seed in (0, 1)]
    cells += [
        make_cell("only", "ntk-lcmd", seed, n_rounds=4, quality=quality)
        for seed, quality in ((0, 0.2), (1, 3.0))
    ]
    charts = ComparisonCharts(compare_cells(cells), Namer())
    found = dict(iter_charts(charts.draw_ratios()))["AUC E, energy"]
    assert series_of(found)["ntk-lcmd"].low is None
    assert "not drawn (ntk-lcmd)" in found.caption


def test_cost_against_gain(record: StudyRecord, study: Path) -> None:
    charts = dict(iter_charts(draw(record).draw_cost_against_gain(record.costs)))
    rows = {row["method"]: row for row in read_csv(study / "cost.csv")}
    for name, series in series_of(charts["AUC E, energy"]).items():
        assert float(np.asarray(series.x)[0]) == pytest.approx(float(rows[name]["select_seconds"]))
    assert series_of(charts["AUC E, energy"])["random"].y[0] == 1.0


def test_stages_are_those_of_the_csv(record: StudyRecord, study: Path) -> None:
    (chart,) = [chart for _, chart in iter_charts(draw(record).draw_stages())]
    rows = {row["method"]: row for row in read_csv(study / "cost.csv")}
    for series in chart.series:
        for method, seconds in zip(series.x, series.y, strict=True):
            assert seconds == pytest.approx(float(rows[str(method)][f"{series.name}_seconds"]))


def test_names_that_are_no_names() -> None:
    hostile = ("random", "<b>&\"'", "__", "日本", "a/../b", "</script>")
    cells = make_study(hostile, pools=["$x$", "$x$ ", "=1+1"], n_rounds=3)
    charts = ComparisonCharts(compare_cells(cells), Namer())
    panels = [*charts.draw_curves(), *charts.draw_ratios(), *charts.draw_stages()]
    names = [chart.name for _, chart in iter_charts(panels)] + [panel.name for panel in panels]
    drawn = [chart for _, chart in iter_charts(panels)]
    assert len({chart.name for chart in drawn}) == len(drawn)
    assert all(
        name.replace("-", "").isascii() and name.replace("-", "").isalnum() for name in names
    )
    assert set(series_of(drawn[0])) == set(hostile)


def test_nothing_finished_draws_nothing() -> None:
    cells = [make_cell("only", "random", 0, n_rounds=3, is_finished=False)]
    charts = ComparisonCharts(compare_cells(cells), Namer())
    assert charts.draw_curves() == []
    assert charts.draw_ratios() == []
    assert charts.draw_stages() == []
    assert charts.draw_cost_against_gain(()) == []


def test_axes_of_nearly_equal_numbers_are_linear() -> None:
    cells = make_study(("random",), pools=["only"], n_rounds=4)
    same = [replace(cell, key=replace(cell.key, method="ntk-lcmd")) for cell in cells]
    charts = ComparisonCharts(compare_cells([*cells, *same]), Namer())
    assert not any(chart.y.is_log for _, chart in iter_charts(charts.draw_ratios()))
    assert all(chart.y.is_log for _, chart in iter_charts(charts.draw_curves()))
