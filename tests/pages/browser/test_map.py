from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelwise.pages.document import Document, PoolMap
from labelwise.pages.page import write_page
from tests.pages.browser.fixtures import Opener
from tests.pages.browser.opening import OpenPage
from tests.pages.documents import make_document


def map_of(document: Document) -> PoolMap:
    panel = document.sections[0].panels[0]
    assert isinstance(panel, PoolMap)
    return panel


def lonely_point(panel: PoolMap, roles: set[int]) -> int:
    """Return the point of these roles that is farthest from every other."""
    places = np.stack([panel.x, panel.y], axis=1)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min(axis=1)
    nearest[~np.isin(panel.roles, list(roles))] = -1
    return int(nearest.argmax())


def wait_for_structure(opened: OpenPage, name: str) -> Any:
    selector = f'.beside .viewer[data-shows="{name}"] canvas'
    opened.page.wait_for_selector(selector, timeout=20_000)
    return opened.page.locator(selector).first


def count_colours(element: Any) -> int:
    picture = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    return len(picture.getcolors(1_000_000) or [])


def test_the_first_chosen_structure_is_open(
    map_report: Path, open_page: Opener, size: dict[str, int]
) -> None:
    opened = open_page(map_report, **size)
    assert count_colours(wait_for_structure(opened, "pool.extxyz@0")) > 50
    assert count_colours(wait_for_structure(opened, "pool.extxyz@10")) > 50
    assert opened.overflow() <= 0


def test_clicking_a_point_shows_its_structure(
    map_report: Path, document: Document, open_page: Opener, size: dict[str, int]
) -> None:
    panel = map_of(document)
    point = lonely_point(panel, {4})
    opened = open_page(map_report, **size)
    wait_for_structure(opened, "pool.extxyz@0")
    opened.click_point("map", panel.x[point], panel.y[point])
    canvas = wait_for_structure(opened, f"pool.extxyz@{point}")
    assert count_colours(canvas) > 50
    shown = opened.page.locator(".beside").inner_text()
    assert "Why it was chosen" in shown
    assert f"0.{81 - point}" in shown
    assert "Nearest labelled" in shown
    assert f"pool.extxyz@{10 + point}" in shown


@pytest.mark.pages
def test_pointing_shows_what_a_point_is(
    map_report: Path, document: Document, open_page: Opener
) -> None:
    panel = map_of(document)
    point = lonely_point(panel, {3})
    opened = open_page(map_report)
    left, top = opened.pixel_of("map", panel.x[point], panel.y[point])
    opened.page.mouse.move(left - 4, top)
    opened.page.mouse.move(left, top, steps=3)
    opened.page.wait_for_selector("#page-tooltip:not([hidden])")
    text = opened.page.locator("#page-tooltip").inner_text()
    assert f"pool.extxyz@{point}" in text
    assert "labelled" in text
    assert "eV" in text


@pytest.mark.pages
def test_a_structure_that_is_not_inside_says_where_it_is(
    map_report: Path, document: Document, open_page: Opener
) -> None:
    panel = map_of(document)
    points = np.flatnonzero(np.asarray(panel.structure) < 0)
    opened = open_page(map_report)
    opened.page.get_by_label("Go to structure").fill(f"@{points[-1]}")
    opened.page.locator(".found button").first.click()
    assert f"frame {points[-1]} of pool.extxyz" in opened.page.locator(".beside").inner_text()
    assert opened.page.locator(".beside .structures").is_hidden()


@pytest.mark.pages
def test_all_of_it_works_with_keys_alone(map_report: Path, open_page: Opener) -> None:
    page = open_page(map_report).page
    search = page.get_by_label("Go to structure")
    search.focus()
    search.press_sequentially("pool.extxyz@12")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector('.viewer[data-shows="pool.extxyz@12"]')
    page.locator(".steps button", has_text="Next").press("Enter")
    page.wait_for_selector('.viewer[data-shows="pool.extxyz@0"]')
    viewer = page.locator(".viewer").first
    before = viewer.screenshot()
    viewer.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert viewer.screenshot() != before


def test_stepping_through_the_chosen(map_report: Path, open_page: Opener) -> None:
    opened = open_page(map_report)
    wait_for_structure(opened, "pool.extxyz@0")
    steps = opened.page.locator(".steps")
    assert steps.get_by_text("Previous").is_disabled()
    for place in range(1, 10):
        steps.get_by_text("Next").click()
        assert f"{place + 1} of 10 chosen" in steps.inner_text()
    assert steps.get_by_text("Next").is_disabled()
    wait_for_structure(opened, "pool.extxyz@9")


@pytest.mark.pages
def test_the_slider_shows_earlier_rounds(
    map_report: Path, open_page: Opener, size: dict[str, int]
) -> None:
    opened = open_page(map_report, **size)
    slider = opened.page.get_by_label("Round", exact=True).first
    legend = opened.page.locator(".keys")
    assert "chosen\n10" in legend.inner_text()
    slider.focus()
    opened.page.keyboard.press("ArrowLeft")
    assert "round 1 of 2: 30 labelled, 10 of them new" in opened.page.locator("output").inner_text()
    opened.page.keyboard.press("Home")
    assert "round 0 of 2: 20 labelled" in opened.page.locator("output").inner_text()
    assert "chosen" not in legend.inner_text()
    drawn = "[...document.querySelector('[data-plot=map]').data].map(d => [d.name, d.x.length])"
    assert dict(opened.page.evaluate(drawn))["labelled"] == 20


@pytest.mark.pages
def test_playing_the_rounds(map_report: Path, open_page: Opener) -> None:
    page = open_page(map_report).page
    page.get_by_role("button", name="Play").click()
    assert "round 0 of 2" in page.locator("output").inner_text()
    page.locator("output", has_text="round 2 of 2").wait_for()
    assert page.get_by_role("button", name="Play").is_visible()


@pytest.mark.pages
def test_colouring_and_hiding(map_report: Path, document: Document, open_page: Opener) -> None:
    page = open_page(map_report).page
    count = "document.querySelector('[data-plot=map]').data.reduce((n, d) => n + d.x.length, 0)"
    assert page.evaluate(count) == 400
    page.get_by_role("button", name="pool").click()
    assert page.evaluate(count) == 65
    page.get_by_role("button", name="pool").click()
    page.get_by_label("Colour by").select_option("source")
    codes = np.asarray(map_of(document).columns[0].codes)  # type: ignore[union-attr]
    page.get_by_role("button", name="family A").click()
    assert page.evaluate(count) == 400 - np.sum(codes == 0)
    assert page.get_by_role("button", name="other (3 more)").is_visible()
    page.get_by_label("Colour by").select_option("partly known")
    unknown = int(np.isnan(map_of(document).columns[2].values).sum())  # type: ignore[union-attr]
    page.get_by_role("button", name="not known").click()
    assert page.evaluate(count) == 400 - unknown


@pytest.mark.pages
def test_atoms_are_coloured_by_their_values(map_report: Path, open_page: Opener) -> None:
    opened = open_page(map_report)
    canvas = wait_for_structure(opened, "pool.extxyz@0")
    before = canvas.screenshot()
    opened.page.get_by_label("Colour atoms by force uncertainty").check()
    assert canvas.screenshot() != before
    assert "meV" in opened.page.locator(".structures .ramp").inner_text()
    opened.page.get_by_label("Labels").first.check()
    opened.page.get_by_label("Spin").first.check()
    opened.page.wait_for_timeout(300)
    turned = canvas.screenshot()
    opened.page.wait_for_timeout(300)
    assert canvas.screenshot() != turned


def test_a_row_opens_its_point(part: Callable[..., Path], open_page: Opener) -> None:
    opened = open_page(part("map", "picks"))
    opened.page.get_by_role("button", name="Show structure 3", exact=True).click()
    wait_for_structure(opened, "pool.extxyz@3")
    assert opened.page.evaluate("document.activeElement.tagName") == "H4"


@pytest.mark.pages
@pytest.mark.parametrize("n_points", [0, 1])
def test_maps_with_next_to_nothing(tmp_path: Path, open_page: Opener, n_points: int) -> None:
    full = map_of(make_document())
    cut = {
        name: getattr(full, name)[:n_points]
        for name in ("x", "y", "roles", "file", "frame", "structure")
    }
    panel = replace(
        full,
        **cut,
        neighbour=np.full(n_points, -1, dtype=np.int32),
        columns=(),
        notes=(),
        rounds=None,
    )
    section = replace(make_document().sections[0], panels=(panel,))
    path = tmp_path / "small.html"
    write_page(path, replace(make_document(), sections=(section,), structures=None))
    opened = open_page(path)
    assert opened.page.locator('[data-plot="map"][data-drawn]').count() == 1
