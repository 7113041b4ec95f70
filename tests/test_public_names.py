"""What is public: each name is there, says what it is, and has an example that runs."""

from __future__ import annotations

import doctest
import io
import sys
from pathlib import Path

import pytest

import labelwise
from labelwise.campaign.labelling import base as labelling
from labelwise.cli import main
from labelwise.features.representations import base as representations
from labelwise.potentials import loading
from labelwise.selection.rules import registry

NAMES = [name for name in labelwise.__all__ if not name.startswith("__")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    assert main(["demo", str(folder / "demo")]) == 0
    return folder


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an example registers is there for the example alone."""
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))
    monkeypatch.setattr(labelling, "_KINDS", dict(labelling._KINDS))
    monkeypatch.setattr(representations, "_FACTORIES", dict(representations._FACTORIES))
    families = dict(loading._families())
    monkeypatch.setattr(loading, "_families", lambda: families)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("unchanged")
def test_its_example_runs(name: str, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    found = getattr(labelwise, name)
    home = sys.modules[found.__module__]
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(found, name, module=home, globs={})
    assert example.examples, f"{name} has no example"
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, out=report.write)
    assert runner.failures == 0, report.getvalue()
