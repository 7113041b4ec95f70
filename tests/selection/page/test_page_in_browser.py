"""The page of a real selection, opened in a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelwise.pages.document import PoolMap, Role
from labelwise.pages.options import ReportOptions
from labelwise.pages.page import write_page
from labelwise.potentials import Potential
from labelwise.selection.page import gather_selection
from tests.pages.browser.fixtures import Opener
from tests.selection.page.conftest import Select


@pytest.mark.parametrize(
    ("width", "height"), [(1280, 900), pytest.param(390, 844, marks=pytest.mark.pages)]
)
def test_a_click_on_a_chosen_point_shows_it_and_says_why(
    select: Select, demo: Potential, folder: Path, open_page: Opener, width: int, height: int
) -> None:
    document = gather_selection(select(group_by="family"), ReportOptions())
    write_page(folder / "page.html", document)
    opened = open_page(folder / "page.html", width=width, height=height)
    (pool_map,) = document.sections[0].panels
    assert isinstance(pool_map, PoolMap)
    chosen = np.flatnonzero(pool_map.roles == list(Role).index(Role.CHOSEN))
    places = np.stack([pool_map.x, pool_map.y], axis=1)
    gaps = np.linalg.norm(places[chosen][:, None] - places[None], axis=2)
    gaps[np.arange(len(chosen)), chosen] = np.inf
    point = int(chosen[gaps.min(axis=1).argmax()])
    opened.click_point(pool_map.name, float(pool_map.x[point]), float(pool_map.y[point]))
    name = f"{pool_map.files[pool_map.file[point]]}@{pool_map.frame[point]}"
    neighbour = pool_map.neighbour[point]
    nearest = f"{pool_map.files[pool_map.file[neighbour]]}@{pool_map.frame[neighbour]}"
    for shown in (name, nearest):
        opened.page.wait_for_selector(f'.viewer[data-shows="{shown}"] canvas', timeout=20_000)
    said = opened.page.locator(".beside").inner_text()
    assert "It was the farthest member of the heaviest cluster" in said
    assert f"{nearest}, kernel distance" in said
    assert opened.overflow() <= 0


def test_a_row_of_the_table_opens_its_structure(
    select: Select, demo: Potential, folder: Path, open_page: Opener
) -> None:
    write_page(
        folder / "page.html",
        gather_selection(select(rule="pv"), ReportOptions(colour_by="family")),
    )
    opened = open_page(folder / "page.html")
    row = opened.page.locator("table tbody tr").nth(2)
    row.scroll_into_view_if_needed()
    name = row.locator("td, th").nth(2).inner_text().replace("\n", "")
    row.get_by_role("button").click()
    opened.page.wait_for_selector(f'.viewer[data-shows="{name}"] canvas', timeout=20_000)
