from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelwise.pages.document import Document
from tests.pages.browser.fixtures import Opener
from tests.pages.browser.opening import OpenPage

PLOTS = ("learning-curves", "parity", "distances", "bars", "stacked", "kernel", "forces-2")


class Parts:
    """Opens pages with a few panels."""

    def __init__(self, part: Callable[..., Path], open_page: Opener) -> None:
        self._part = part
        self._open_page = open_page

    def open(self, *names: str) -> OpenPage:
        opened: OpenPage = self._open_page(self._part(*names))
        return opened


@pytest.fixture
def parts(part: Callable[..., Path], open_page: Opener) -> Parts:
    return Parts(part, open_page)


def traces_of(opened: OpenPage, name: str) -> list[dict[str, Any]]:
    opened.plot(name)
    kept = "({name: d.name, fill: d.fill, y: [...(d.y ?? [])], marker: d.marker, line: d.line})"
    traces: list[dict[str, Any]] = opened.page.evaluate(
        f"[...document.querySelector('[data-plot={name}]').data].map(d => {kept})"
    )
    return traces


def column_of(opened: OpenPage, number: int) -> list[str]:
    cells = opened.page.locator(f"#picks tbody td:nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_every_panel_is_there_at_both_sizes(
    report: Path, document: Document, open_page: Opener, size: dict[str, int]
) -> None:
    opened = open_page(report, **size)
    for name in PLOTS:
        assert opened.plot(name).locator(".main-svg").count() > 0, name
    assert opened.overflow() <= 0
    text = opened.page.locator("main").inner_text()
    for fact in document.facts:
        assert fact.value in text
    for section in document.sections:
        assert opened.page.locator(f"section#{section.name} h2").inner_text() == section.title
    assert opened.page.title() == document.title


def test_plots_offer_a_picture_and_no_server(parts: Parts) -> None:
    opened = parts.open("bars")
    opened.plot("bars")
    titles = opened.page.locator(".modebar-btn").evaluate_all(
        "buttons => buttons.map(button => button.getAttribute('data-title'))"
    )
    assert "Download plot as a PNG" in titles
    assert not [title for title in titles if "Share" in title or "Plotly" in title]


def test_bands_switch_on_and_off(parts: Parts) -> None:
    opened = parts.open("learning-curves")
    assert sum(trace["fill"] == "tonexty" for trace in traces_of(opened, "learning-curves")) == 5
    opened.page.get_by_label("Show range of seeds").uncheck()
    traces = traces_of(opened, "learning-curves")
    assert traces[0]["name"] == "random"
    assert len(traces) == 5
    styles = {(t["line"]["color"], t["line"]["dash"], t["marker"]["symbol"]) for t in traces}
    assert len(styles) == 5
    opened.page.get_by_label("Show range of seeds").check()
    assert len(traces_of(opened, "learning-curves")) == 15


def test_the_legend_hides_a_series_and_its_band(parts: Parts) -> None:
    opened = parts.open("learning-curves")
    plot = opened.plot("learning-curves")
    plot.locator(".legendtoggle").first.click()
    # Plotly waits whether it is a double click.
    plot.locator('.legend .traces[style*="opacity: 0.5"]').first.wait_for()
    visible = opened.page.evaluate(
        "document.querySelector('[data-plot=learning-curves]')._fullData.map(d => d.visible)"
    )
    assert visible[:3] == ["legendonly"] * 3
    assert visible[3:] == [True] * 12


def test_clicking_a_point_of_a_chart_opens_its_structure(parts: Parts, document: Document) -> None:
    opened = parts.open("map", "parity")
    chart: Any = document.sections[1].panels[1]
    opened.click_point("parity", chart.series[0].x[0], chart.series[0].y[0])
    dialog = opened.page.locator("dialog[open]")
    dialog.locator('.viewer[data-shows="pool.extxyz@0"]').wait_for()
    assert "pool.extxyz@0" in dialog.inner_text()
    assert "true energy / eV" in dialog.inner_text()
    dialog.get_by_role("button", name="Show on the map").click()
    assert opened.page.locator("dialog[open]").count() == 0
    opened.page.wait_for_selector('.beside .viewer[data-shows="pool.extxyz@0"]')


def test_data_of_a_chart_as_a_table(parts: Parts, document: Document) -> None:
    opened = parts.open("learning-curves")
    opened.page.locator("#learning-curves summary").click()
    rows = opened.page.locator("#learning-curves tbody tr")
    rows.first.wait_for()
    assert rows.count() == 25
    series: Any = document.sections[1].panels[0].series[0]  # type: ignore[union-attr]
    first = rows.first.locator("td").all_inner_texts()
    assert first[:2] == ["random", "50"]
    assert [float(text) for text in first[2:]] == pytest.approx(
        [series.y[0], series.low[0], series.high[0]], rel=1e-3
    )


def test_sorting_a_table(parts: Parts) -> None:
    opened = parts.open("picks")
    header = opened.page.locator("#picks th", has_text="variance")
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    values = [float(text.replace("−", "-")) for text in column_of(opened, 4)]
    assert values == sorted(values)
    assert len(values) == 100
    header.get_by_role("button").press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    values = [float(text.replace("−", "-")) for text in column_of(opened, 4)]
    assert values == sorted(values, reverse=True)
    mass = opened.page.locator("#picks th", has_text="cluster mass")
    mass.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "none"
    shown = column_of(opened, 5)
    assert shown[:2] == ["1.0×10⁻⁶", "2.0×10⁻⁶"]
    assert "–" not in shown  # what is missing comes last


def test_words_sort_by_the_numbers_in_them(parts: Parts) -> None:
    opened = parts.open("picks")
    opened.page.locator("#picks th .sort").first.click()
    assert column_of(opened, 2)[:12] == [f"structure {i}" for i in range(12)]


def test_filtering_and_turning_pages(parts: Parts) -> None:
    opened = parts.open("picks")
    table = opened.page.locator("#picks")
    table.get_by_role("button", name="Next").click()
    assert column_of(opened, 2)[0] == "structure 100"
    assert len(column_of(opened, 2)) == 30
    table.get_by_label("Filter rows").fill("STRUCTURE 12")
    assert column_of(opened, 2) == ["structure 12", *(f"structure {i}" for i in range(120, 130))]
    assert "11 of 130 rows" in table.inner_text()
    table.get_by_label("Filter rows").fill("")
    assert len(column_of(opened, 2)) == 100


def test_copying_a_table(part: Callable[..., Path], open_page: Opener) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    page = open_page(part("picks"), permissions=permissions).page
    page.locator("#picks").get_by_label("Filter rows").fill("structure 12")
    page.locator("#picks").get_by_role("button", name="Copy as CSV").click()
    page.locator("#picks").get_by_text("Copied.").wait_for()
    lines = page.evaluate("navigator.clipboard.readText()").split("\r\n")
    assert lines[0] == "structure,order,variance,cluster mass"
    assert len(lines) == 12
    assert lines[1].startswith("structure 12,12,")


def test_choosing_one_of_several(parts: Parts) -> None:
    opened = parts.open("rounds")
    opened.plot("forces-2")
    page = opened.page
    page.get_by_label("Round", exact=True).last.select_option("round 0")
    opened.plot("forces-0")
    assert page.locator('[data-plot="forces-2"]').count() == 0
    choice = page.locator(".chooser")
    assert choice.get_by_role("button", name="Previous").is_disabled()
    choice.get_by_role("button", name="Next").click()
    opened.plot("forces-1")
    assert page.get_by_role("heading", name="Forces, round 1").is_visible()


def test_the_theme_changes_page_and_plots(parts: Parts) -> None:
    opened = parts.open("bars")
    page = opened.page
    plot = opened.plot("bars")
    colour = "getComputedStyle(document.body).backgroundColor"
    light, drawn = page.evaluate(colour), plot.screenshot()
    page.get_by_role("button", name="dark", exact=True).click()
    opened.wait()
    assert page.evaluate(colour) != light
    assert plot.screenshot() != drawn
    page.get_by_role("button", name="system", exact=True).click()
    assert page.evaluate(colour) == light
    page.emulate_media(color_scheme="dark")
    page.locator('html[data-theme="dark"]').wait_for()


def test_plots_fit_a_window_that_changes(parts: Parts) -> None:
    opened = parts.open("bars")
    plot = opened.plot("bars")
    before = plot.locator(".main-svg").first.bounding_box()["width"]
    opened.page.set_viewport_size({"width": 800, "height": 700})
    opened.page.wait_for_timeout(600)
    after = plot.locator(".main-svg").first.bounding_box()["width"]
    assert after != before
    assert opened.overflow() <= 0


def test_the_page_says_what_it_carries(parts: Parts) -> None:
    opened = parts.open("picks")
    opened.page.locator("footer summary").click()
    text = opened.page.locator("footer pre")
    text.get_by_text("University of Pittsburgh").wait_for()
    assert "Plotly" in text.inner_text()
    assert "Features in float64." in opened.page.locator("footer").inner_text()
