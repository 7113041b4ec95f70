"""A browser for tests of pages: ``open_page(path)`` opens one and checks it at the end.

A test that asks for ``open_page`` is skipped, with the reason, where there is no Chromium. At its
end the test fails if a page said anything on the console, raised an error or asked for anything
outside its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pages.browser.opening import ARGUMENTS, OpenPage, find_chromium

Opener = Callable[..., OpenPage]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, one for all tests of a process."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium here; with Debian: apt-get install chromium")
    playwright_api = pytest.importorskip("playwright.sync_api")
    with playwright_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Opener]:
    """Open files: ``open_page(path, width=1280, height=900, scheme="light")``."""
    opened: list[OpenPage] = []

    def open_file(
        path: Path, *, width: int = 1280, height: int = 900, scheme: str = "light", **settings: Any
    ) -> OpenPage:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **settings
        )
        page = OpenPage(context.new_page())
        opened.append(page)
        page.listen()
        page.open(path)
        return page

    yield open_file
    try:
        for page in opened:
            page.check()
    finally:
        for page in opened:
            page.page.context.close()
