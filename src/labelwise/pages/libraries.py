"""The JavaScript libraries that a page carries: Plotly.js and 3Dmol.js."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

from labelwise.errors import LabelwiseError

WEB_FOLDER = Path(__file__).parent / "web"
VENDOR_FOLDER = WEB_FOLDER / "vendor"
#: Names of the npm packages, in the order in which a page loads them.
LIBRARIES = ("plotly.js-strict-dist-min", "3dmol")


class MissingLibrariesError(LabelwiseError, FileNotFoundError):
    """The JavaScript libraries are not in this installation."""


@dataclass(frozen=True)
class Library:
    """A library as it goes into a page.

    Attributes:
        name: Its npm package.
        version: Its version.
        compressed: The minified script, gzip.
    """

    name: str
    version: str
    compressed: bytes

    def script(self) -> bytes:
        """Return the script itself."""
        return gzip.decompress(self.compressed)


def read_libraries(folder: Path = VENDOR_FOLDER) -> tuple[Library, ...]:
    """Return the libraries of this installation, in order of loading.

    Args:
        folder: Where the build left them.

    Raises:
        MissingLibrariesError: They are not there; says how to get them.
    """
    try:
        versions = json.loads((folder / "versions.json").read_text("utf-8"))
        return tuple(
            Library(name, versions[name], (folder / f"{name}.js.gz").read_bytes())
            for name in LIBRARIES
        )
    except (OSError, ValueError, KeyError) as error:
        raise MissingLibrariesError(
            "cannot write a report: the JavaScript libraries that it carries are not in this "
            f"installation ({type(error).__name__} in {folder}). They are fetched with npm when "
            "the package is built: install Node.js, then run pip install once more, or install "
            "a released wheel, which brings them"
        ) from error


def read_licences(folder: Path = VENDOR_FOLDER) -> str:
    """Return the licences of the libraries, as text.

    Args:
        folder: Where the build left them.

    Raises:
        MissingLibrariesError: They are not there.
    """
    try:
        return (folder / "licences.txt").read_text("utf-8")
    except OSError as error:
        raise MissingLibrariesError(
            f"cannot write a report: {folder / 'licences.txt'} is missing; run pip install once "
            "more where npm is installed"
        ) from error
