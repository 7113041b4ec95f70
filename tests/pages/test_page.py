from __future__ import annotations

import base64
import gzip
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from labelwise.errors import WriteError
from labelwise.pages.blob import encode_document
from labelwise.pages.document import Document, Kind
from labelwise.pages.libraries import WEB_FOLDER, read_libraries
from labelwise.pages.page import SCRIPTS, render_page, write_page
from tests.pages.documents import make_document

HOSTILE = '</title><script>alert(1)</script>"><img src=x onerror=alert(1)>{{data}}\udc80'


class Reader(HTMLParser):
    """Elements of a page, and what its scripts hold."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str | None, str] = {}
        self._script: str | None = None
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside, self._script = tag == "script", dict(attrs).get("id")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


def read_page(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


@pytest.fixture(scope="module")
def hostile_page() -> Reader:
    return read_page(render_page(make_document(text=HOSTILE)))


def test_texts_of_a_document_are_never_markup(hostile_page: Reader) -> None:
    plain = read_page(render_page(make_document()))
    assert [tag for tag, _ in hostile_page.tags] == [tag for tag, _ in plain.tags]
    assert "alert(1)" not in "".join(hostile_page.scripts[key] for key in (None,))


def test_the_document_is_inside(hostile_page: Reader) -> None:
    content = gzip.decompress(base64.b64decode(hostile_page.scripts["data-document"]))
    assert content == encode_document(make_document(text=HOSTILE))


def test_nothing_is_fetched(hostile_page: Reader) -> None:
    for tag, attributes in hostile_page.tags:
        assert "src" not in attributes
        assert not attributes.get("href", "#").startswith(("http", "/")), tag


def test_only_the_scripts_of_the_page_may_run(hostile_page: Reader) -> None:
    policy = next(
        attributes["content"]
        for tag, attributes in hostile_page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    scripts = [hostile_page.scripts[None].encode(), *(one.script() for one in read_libraries())]
    sums = [base64.b64encode(hashlib.sha256(content).digest()).decode() for content in scripts]
    assert allowed == sums
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe" not in policy
    assert "connect-src" not in policy  # default-src forbids it


def test_every_script_of_the_folder_is_in_the_page() -> None:
    assert sorted(SCRIPTS) == sorted(path.name for path in WEB_FOLDER.glob("*.js"))


def test_sources_never_parse_html_and_can_stand_inside_a_page() -> None:
    for name in SCRIPTS:
        source = (WEB_FOLDER / name).read_text()
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ):
            assert forbidden not in source, name
        assert "</script" not in source
        assert "<!--" not in source


def test_the_same_document_gives_the_same_file() -> None:
    assert render_page(make_document()) == render_page(make_document())


def test_writing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_page(path, Document(Kind.CAMPAIGN, "A < B", ""))
    assert "<title>A &lt; B</title>" in path.read_text("utf-8")
    assert path.stat().st_size < 3_000_000
    with pytest.raises(WriteError, match="it is a directory"):
        write_page(tmp_path, Document(Kind.CAMPAIGN, "A", ""))
