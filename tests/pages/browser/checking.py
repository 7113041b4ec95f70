"""What axe-core says of an open page."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pages.browser.opening import OpenPage

axe_sync = pytest.importorskip("axe_playwright_python.sync_playwright")
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}


def find_violations(opened: OpenPage) -> list[tuple[str, str, list[Any]]]:
    results = axe_sync.Axe().run(opened.page, options=RULES)
    return [
        (found["id"], found["help"], [node["html"][:200] for node in found["nodes"][:3]])
        for found in results.response["violations"]
    ]
