from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from labelwise.pages.libraries import (
    LIBRARIES,
    VENDOR_FOLDER,
    WEB_FOLDER,
    MissingLibrariesError,
    read_libraries,
    read_licences,
)


def test_the_pinned_versions_are_there() -> None:
    pinned = json.loads((WEB_FOLDER / "package.json").read_text())["dependencies"]
    libraries = read_libraries()
    assert {library.name: library.version for library in libraries} == pinned
    assert tuple(library.name for library in libraries) == LIBRARIES


def test_scripts_can_stand_inside_a_page_and_run_under_its_policy() -> None:
    for library in read_libraries():
        library.script().decode("utf-8")
        assert b"\r" not in library.script()  # a page's reader would change what is summed


def test_licences_name_every_package_that_is_inside() -> None:
    text = read_licences()
    locked = json.loads((WEB_FOLDER / "package-lock.json").read_text())["packages"]
    for name, entry in locked.items():
        if name and not entry.get("dev"):
            assert f"{name.rpartition('node_modules/')[2]} {entry['version']}" in text
    assert "Plotly" in text
    assert "University of Pittsburgh" in text


def test_the_lock_file_names_no_registry_and_every_checksum() -> None:
    text = (WEB_FOLDER / "package-lock.json").read_text()
    assert "http" not in text
    packages = json.loads(text)["packages"]
    assert all("integrity" in entry for name, entry in packages.items() if name)


@pytest.mark.parametrize("missing", ["versions.json", f"{LIBRARIES[0]}.js.gz", "licences.txt"])
def test_a_missing_file_is_said_clearly(tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "vendor"
    shutil.copytree(VENDOR_FOLDER, folder)
    (folder / missing).unlink()
    with pytest.raises(MissingLibrariesError, match=r"pip install once\s+more"):
        read_licences(folder) if missing == "licences.txt" else read_libraries(folder)
