"""Pages of real runs on the embedded reactions and model, made by the commands, in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labelwise.cli import main
from labelwise.cli.recognising import gather
from labelwise.pages.document import Chart, Choice, Document, PoolMap
from labelwise.pages.options import ReportOptions
from labelwise.structures import read_structures, write_structures
from tests.pages.browser.checking import find_violations
from tests.pages.browser.fixtures import Opener
from tests.pages.browser.opening import OpenPage

OPTIONS = ReportOptions()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "demo"
    assert main(["demo", str(folder)]) == 0
    for name, step in (("pool", 8), ("valid", 2), ("test", 8)):
        path = folder / f"{name}.extxyz"
        write_structures(path, read_structures(path)[::step])
    return folder


@pytest.fixture(scope="module")
def selection(demo: Path) -> Path:
    words = ["--model", "demo", "--train", str(demo / "train.extxyz")]
    words += ["--pool", str(demo / "pool.extxyz"), "-n", "8", "--quiet", "--report"]
    assert main(["select", *words, "--out", str(demo / "batch.extxyz")]) == 0
    return demo / "batch.html"


@pytest.fixture(scope="module")
def campaign(demo: Path) -> Path:
    assert main(["campaign", "init", str(demo), "--template"]) == 0
    config = demo / "campaign.yaml"
    config.write_text(config.read_text().replace("max_updates: null", "max_updates: 12"))
    assert main(["campaign", "run", str(demo), "--rounds", "2", "--quiet"]) == 0
    return demo / "report.html"


@pytest.fixture(scope="module")
def comparison(demo: Path) -> Path:
    words = ["compare", "--preset", "reaction-mixed", "--methods", "random,ntk-lcmd"]
    words += ["--seeds", "0", "--rounds", "1", "--max-updates", "6", "--thin", "30", "--quiet"]
    assert main([*words, "--workers", "1", "--out", str(demo / "study")]) == 0
    return demo / "study" / "report.html"


def find_map(document: Document) -> PoolMap:
    panels = [panel for section in document.sections for panel in section.panels]
    return next(panel for panel in panels if isinstance(panel, PoolMap))


def draw_all(opened: OpenPage, document: Document) -> None:
    """Scroll to every chart, so that each is drawn once."""
    for section in document.sections:
        for panel in section.panels:
            shown = panel.options[panel.first][1] if isinstance(panel, Choice) else panel
            if isinstance(shown, Chart | PoolMap):
                opened.plot(shown.name)


def check_page(opened: OpenPage, document: Document) -> None:
    """Everything is drawn, nothing is wider than the window, and axe finds nothing."""
    draw_all(opened, document)
    assert opened.overflow() <= 0
    links = "[...document.querySelectorAll('.links a')]"
    assert opened.page.evaluate(f"{links}.length") == len(document.sections)
    cut = f"{links}.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.innerText)"
    assert opened.page.evaluate(cut) == []
    assert find_violations(opened) == []


def check_columns(opened: OpenPage) -> None:
    """No column of the map's card is much shorter than the other: no blank stands under it."""
    drawn = "document.querySelector('.plane').getBoundingClientRect().height"
    # The cell of the grid is as high as its row; what is in it may be lower.
    told = (
        "(() => { const beside = document.querySelector('.beside');"
        " return beside.lastElementChild.getBoundingClientRect().bottom"
        " - beside.getBoundingClientRect().top; })()"
    )
    plane, beside = (opened.page.evaluate(script) for script in (drawn, told))
    assert abs(plane - beside) < 0.3 * plane


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.pages)])
def test_the_page_of_a_selection(
    selection: Path, open_page: Opener, size: dict[str, int], scheme: str
) -> None:
    document = gather(selection.with_suffix(".json"), OPTIONS)
    opened = open_page(selection, scheme=scheme, **size)
    pool_map = find_map(document)
    note = pool_map.notes[-1].point
    opened.click_point(pool_map.name, float(pool_map.x[note]), float(pool_map.y[note]))
    opened.page.wait_for_selector(".beside .viewer canvas", timeout=20_000)
    assert "nearest labelled" in opened.page.locator(".beside").inner_text().lower()
    if size["width"] > 1000:
        check_columns(opened)
    check_page(opened, document)


@pytest.mark.pages
def test_the_page_of_a_campaign(campaign: Path, open_page: Opener, size: dict[str, int]) -> None:
    document = gather(campaign.parent, OPTIONS)
    opened = open_page(campaign, **size)
    opened.plot(find_map(document).name)
    opened.page.get_by_label("Round", exact=True).first.focus()
    opened.page.keyboard.press("Home")
    assert "round 0 of 2" in opened.page.locator("output").first.inner_text()
    opened.page.keyboard.press("ArrowRight")
    assert "round 1 of 2" in opened.page.locator("output").first.inner_text()
    check_page(opened, document)


@pytest.mark.pages
def test_the_page_of_a_comparison(
    comparison: Path, open_page: Opener, size: dict[str, int]
) -> None:
    document = gather(comparison.parent, OPTIONS)
    opened = open_page(comparison, **size)
    header = opened.page.locator("#errors th", has_text="AUC F").get_by_role("button")
    header.click()
    assert opened.page.locator("#errors th[aria-sort='ascending']").count() == 1
    assert opened.page.locator("section#kernels-section").count() == 1
    check_page(opened, document)


def test_the_same_page_twice(selection: Path, make_again: Callable[[Path], bytes]) -> None:
    assert make_again(selection) == make_again(selection)


@pytest.fixture
def make_again(tmp_path: Path) -> Callable[[Path], bytes]:
    def make(page: Path) -> bytes:
        out = tmp_path / "again.html"
        summary = str(page.with_suffix(".json"))
        assert main(["report", summary, "--out", str(out), "--force", "--quiet"]) == 0
        return out.read_bytes()

    return make
