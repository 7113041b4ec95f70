"""Writes a document as one HTML file that needs nothing else, the network included.

The file holds the page's own style and script as text, and the libraries, their licences
and the document compressed. A Content-Security-Policy forbids every connection and every script
but these: each is named by its checksum.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import re
from collections.abc import Mapping
from pathlib import Path

from labelwise.pages.blob import encode_document
from labelwise.pages.document import Document
from labelwise.pages.libraries import WEB_FOLDER, Library, read_libraries, read_licences
from labelwise.runtime.files import write_text

#: The page's own script, in order of loading.
SCRIPTS = (
    "elements.js",
    "numbers.js",
    "unpacking.js",
    "theme.js",
    "tables.js",
    "plots.js",
    "charts.js",
    "heat_maps.js",
    "viewers.js",
    "structures.js",
    "map_colours.js",
    "map_layers.js",
    "map_legend.js",
    "map_panel.js",
    "pool_maps.js",
    "choices.js",
    "sections.js",
    "start.js",
)
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_FASTEST_GOOD = 6  # of gzip's levels: level 9 takes three times as long for one per cent


def write_page(path: Path, document: Document) -> None:
    """Write a document as one self-contained HTML file.

    Args:
        path: Where to write; missing folders are made. The file is there whole or not at all.
        document: What the page shows.

    Raises:
        MissingLibrariesError: The JavaScript libraries are not in this installation.
        ArgumentError: The document holds what has no place on a page.
        WriteError: The file cannot be written.
    """
    write_text(path, render_page(document))


def render_page(document: Document) -> str:
    """Return the HTML of a document's page, the same for the same document.

    Args:
        document: What the page shows.

    Raises:
        MissingLibrariesError: The JavaScript libraries are not in this installation.
        ArgumentError: The document holds what has no place on a page.
    """
    libraries = read_libraries()
    script = _own_script()
    packed = {f"data-{library.name}": library.compressed for library in libraries}
    packed["data-licences"] = _compress(read_licences().encode())
    packed["data-document"] = _compress(encode_document(document))
    return _fill(
        (WEB_FOLDER / "page.html").read_text("utf-8"),
        {
            "title": html.escape(document.title.encode("utf-8", "replace").decode()),
            "policy": _make_policy(script, libraries),
            "style": (WEB_FOLDER / "page.css").read_text("utf-8"),
            "data": "\n".join(_embed(name, content) for name, content in packed.items()),
            "script": script,
        },
    )


def _own_script() -> str:
    parts = [(WEB_FOLDER / name).read_text("utf-8") for name in SCRIPTS]
    return "\n'use strict';\n(() => {\n" + "\n".join(parts) + "\n})();\n"


def _make_policy(script: str, libraries: tuple[Library, ...]) -> str:
    """Return a policy under which only these scripts run and nothing is fetched."""
    scripts = [script.encode(), *(library.script() for library in libraries)]
    checksums = " ".join(f"'sha256-{_checksum(content)}'" for content in scripts)
    return (
        f"default-src 'none'; script-src {checksums}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _checksum(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def _embed(name: str, content: bytes) -> str:
    coded = base64.b64encode(content).decode()
    return f'<script type="application/octet-stream" id="{name}">{coded}</script>'


def _compress(content: bytes) -> bytes:
    return gzip.compress(content, _FASTEST_GOOD, mtime=0)


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Fill placeholders in one pass, so that values may hold what looks like one."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)
