"""The page of a comparison in a browser: a table is sorted, bands are switched off."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelwise.pages.options import ReportOptions
from labelwise.pages.page import write_page
from labelwise.studies.comparison.page import gather_comparison
from labelwise.studies.comparison.report import write_report
from tests.pages.browser.fixtures import Opener
from tests.pages.browser.opening import OpenPage
from tests.studies.comparison.building import make_study
from tests.studies.comparison.page.building import COSTS, as_number, read_csv

METHODS = ("random", "activation-lcmd", "ntk-lcmd")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    cells = make_study(METHODS, pools=["only"], n_rounds=4)
    write_report(folder, cells, COSTS, title="A comparison", with_pictures=False)
    document = gather_comparison(folder, ReportOptions())
    write_page(folder / "report.html", document)
    return folder


@pytest.fixture
def opened(study: Path, open_page: Opener, size: dict[str, int]) -> OpenPage:
    return open_page(study / "report.html", **size)


def test_sorting_the_table_of_errors(opened: OpenPage, study: Path) -> None:
    rows = {row["method"]: as_number(row, "auc_forces_rmse_mean") for row in read_errors(study)}
    methods = opened.page.locator("#errors tbody td:first-child")
    assert methods.all_inner_texts() == list(METHODS)
    header = opened.page.locator("#errors th", has_text="AUC F").get_by_role("button")
    header.click()
    ascending = sorted(METHODS, key=lambda name: rows[name] or 0.0)
    assert methods.all_inner_texts() == ascending
    header.click()
    assert methods.all_inner_texts() == ascending[::-1]
    shown = opened.page.locator("#errors tbody td:nth-child(5)").all_inner_texts()
    wanted = [rows[name] for name in ascending[::-1]]
    assert [float(text) for text in shown] == pytest.approx(wanted, rel=1e-3)


def test_switching_bands_off_and_choosing_another_error(opened: OpenPage) -> None:
    name = "learning-curves-forces-rmse-only"
    assert count_bands(opened, name) == len(METHODS)
    section = opened.page.locator("section#learning-curves")
    section.get_by_label("Show standard error over seeds").nth(1).uncheck()
    assert count_bands(opened, name) == 0
    section.get_by_role("combobox").nth(1).select_option("only, MAE")
    assert count_bands(opened, "learning-curves-forces-mae-only") == len(METHODS)
    assert opened.overflow() <= 0


def count_bands(opened: OpenPage, name: str) -> int:
    opened.plot(name)
    fills = opened.page.evaluate(
        f"[...document.querySelector('[data-plot={name}]').data].map(d => d.fill)"
    )
    return sum(fill == "tonexty" for fill in fills)


def read_errors(study: Path) -> list[dict[str, str]]:
    return read_csv(study / "errors.csv")
