from __future__ import annotations

from pathlib import Path

import pytest

from labelwise.pages.page import write_page
from tests.pages.browser.fixtures import Opener
from tests.pages.browser.opening import OpenPage
from tests.pages.documents import make_document

HOSTILE = (
    '<script>window.broken=1</script>"><img src=x onerror=window.broken=1></script><!--{{data}}'
    "<a href='javascript:window.broken=1'>link</a><b>bold</b>%{x}&lt;\u202eevil\u2066\udc80"
    + "long"
    * 60
)
SHOWN = (
    HOSTILE.replace("\u202e", "\\u202e").replace("\u2066", "\\u2066").replace("\udc80", "\ufffd")
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("hostile") / "report.html"
    write_page(target, make_document(text=HOSTILE, n_points=80))
    return target


def assert_harmless(opened: OpenPage) -> None:
    page = opened.page
    assert page.evaluate("window.broken") is None
    assert page.locator("main img, main b, main a, main script, iframe, object").count() == 0
    svg_links = "document.querySelectorAll('svg a').length"
    assert page.evaluate(svg_links) == 0
    assert opened.overflow() <= 0


def test_texts_are_shown_as_they_are(path: Path, open_page: Opener, size: dict[str, int]) -> None:
    opened = open_page(path, **size)
    opened.plot("map")
    opened.page.wait_for_selector(".beside .viewer[data-shows]")
    for name in ("learning-curves", "parity", "bars", "kernel", "forces-2"):
        opened.plot(name)
    assert_harmless(opened)
    places = ("h1", ".subtitle", "section h2", ".caption", ".paragraph", ".fact dt", "footer li")
    for selector in places:
        shown = opened.page.locator(selector).first.text_content()
        assert shown is not None
        assert SHOWN in shown.replace("\udc80", "\ufffd"), selector


def test_texts_that_plots_and_tooltips_show(path: Path, open_page: Opener) -> None:
    opened = open_page(path)
    document = make_document(text=HOSTILE, n_points=80)
    panel = document.sections[0].panels[0]
    opened.click_point("map", panel.x[0], panel.y[0])  # type: ignore[union-attr]
    lines = document.sections[1].panels[0]
    series = lines.series[0]  # type: ignore[union-attr]
    left, top = opened.pixel_of("learning-curves", series.x[2], series.y[2])
    opened.page.mouse.move(left - 3, top)
    opened.page.mouse.move(left, top, steps=3)
    hover = opened.page.locator('[data-plot="learning-curves"] .hoverlayer .hovertext')
    hover.wait_for()
    assert "<script>window.broken=1</script>" in hover.text_content()
    legend = opened.page.locator('[data-plot="learning-curves"] .legendtext').first
    assert legend.text_content().startswith("random<script>")
    for summary in opened.page.locator("summary").all():
        summary.click()
    opened.page.get_by_label("Colour by").select_option(index=1)
    opened.page.get_by_label("Go to structure").fill("<script>")
    assert opened.page.locator(".found button").count() > 1
    assert_harmless(opened)
