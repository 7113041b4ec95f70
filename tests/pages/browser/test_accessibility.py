from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pages.browser.checking import find_violations
from tests.pages.browser.fixtures import Opener


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.pages)])
def test_axe_finds_nothing(
    report: Path, open_page: Opener, size: dict[str, int], scheme: str
) -> None:
    opened = open_page(report, scheme=scheme, **size)
    opened.page.wait_for_selector(".beside .viewer[data-shows]")
    opened.page.get_by_label("Colour by").select_option("source")
    opened.page.locator("#learning-curves summary").click()
    opened.page.get_by_label("Go to structure").fill("pool")
    opened.plot("forces-2")
    assert find_violations(opened) == []


@pytest.mark.pages
def test_axe_finds_nothing_in_a_dialog(part: Callable[..., Path], open_page: Opener) -> None:
    opened = open_page(part("parity"))
    opened.page.locator("#parity summary").click()
    opened.page.locator("#parity").get_by_role("button", name="Show pool").first.click()
    opened.page.locator("dialog[open] .viewer[data-shows]").wait_for()
    assert find_violations(opened) == []
