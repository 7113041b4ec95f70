"""The page that most tests look at; ``open_page`` is in ``fixtures.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from labelwise.pages.document import Document
from labelwise.pages.page import write_page
from tests.pages.documents import make_document


@pytest.fixture(scope="session")
def document() -> Document:
    return make_document()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory, document: Document) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(path, document)
    return path


@pytest.fixture(scope="session")
def part(tmp_path_factory: pytest.TempPathFactory, document: Document) -> Callable[..., Path]:
    """Write a page with the panels of these names only, which opens faster."""
    folder = tmp_path_factory.mktemp("parts")

    def write(*names: str) -> Path:
        path = folder / f"{'-'.join(names)}.html"
        if not path.exists():
            sections = tuple(
                replace(section, panels=tuple(one for one in section.panels if one.name in names))
                for section in document.sections
            )
            write_page(path, replace(document, sections=sections))
        return path

    return write


@pytest.fixture(scope="session")
def map_report(part: Callable[..., Path]) -> Path:
    return part("map")


@pytest.fixture(
    params=[
        pytest.param((1280, 900), id="desktop"),
        pytest.param((390, 844), id="phone", marks=pytest.mark.pages),
    ]
)
def size(request: pytest.FixtureRequest) -> dict[str, int]:
    width, height = request.param
    return {"width": width, "height": height}
