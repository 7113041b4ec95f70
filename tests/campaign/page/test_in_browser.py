"""The page of a real campaign in a browser: slider, points, structures, tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelwise.pages.document import Document
from labelwise.pages.page import write_page
from tests.campaign.page.reading import panel


@pytest.fixture(scope="module")
def path(document: Document, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("page") / "report.html"
    write_page(found, document)
    return found


@pytest.mark.parametrize("width", [1280, pytest.param(390, marks=pytest.mark.pages)])
def test_slider_points_and_structures(
    path: Path, document: Document, open_page: Callable[..., Any], width: int
) -> None:
    opened = open_page(path, width=width)
    page = opened.page
    found = panel(document, "campaign-map")
    opened.plot(found.name)
    card = page.locator(f"#{found.name}")
    assert "round 2 of 2: 12 labelled" in card.inner_text()
    card.locator("input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "name => document.getElementById(name).innerText.includes('round 1 of 2: 8 labelled')",
        arg=found.name,
    )
    point = int((found.rounds == 1).nonzero()[0][0])
    opened.click_point(found.name, float(found.x[point]), float(found.y[point]))
    name = f"@{found.frame[point]}"
    page.wait_for_function(
        "([name, text]) => document.getElementById(name).innerText.includes(text)",
        arg=[found.name, name],
    )
    assert card.locator("canvas").count() > 0
    assert opened.overflow() <= 0


def test_parity_points_open_structures(
    path: Path, document: Document, open_page: Callable[..., Any]
) -> None:
    opened = open_page(path)
    chart = panel(document, "parity-energy-2")
    (points,) = chart.series
    opened.click_point(chart.name, float(points.x[0]), float(points.y[0]))
    assert document.structures is not None
    name = document.structures.names[int(points.structure[0])].rpartition("/")[2]
    opened.page.wait_for_function("text => document.body.innerText.includes(text)", arg=name)
    assert "<b>carbon & dioxide</b>" in opened.page.locator("#errors").inner_text() + (
        opened.page.locator("#errors select").last.inner_text()
    )
