"""Imports only point up the list; a newcomer guesses the file from the question."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import labelwise

PACKAGE = Path(labelwise.__file__).parent
# Data flow down this list, so a room may import itself and the rooms above it.
ROOMS = [
    "errors",
    "runtime",
    "structures",
    "pages",
    "potentials",
    "features",
    "kernels",
    "selection",
    "finetuning",
    "campaign",
    "studies",
    "testing",
    "cli",
    "__main__",
]
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"
)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("labelwise.")
        ):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("labelwise.")}
    return rooms


def test_imports_point_up() -> None:
    wrong = {
        f"{path.relative_to(PACKAGE)} may not import {room}"
        for path in MODULES
        for room in imported_rooms(path)
        if ROOMS.index(room) > ROOMS.index(room_of(path))
    }
    assert wrong == set()


def test_modules_stay_small() -> None:
    n_lines = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES
    }
    assert {name: n for name, n in n_lines.items() if n > 500} == {}


#: Libraries of model families, and the folders of ``potentials`` that may import them.
FAMILIES = {
    "mace": {"mace"},
    "e3nn": {"mace", "sevennet"},
    "sevenn": {"sevennet"},
    "chgnet": {"chgnet"},
    **{name: {"mlip"} for name in ("mlip", "jax", "flax", "jraph", "optax")},
}


def test_model_families_are_imported_in_one_place_only() -> None:
    for path in MODULES:
        tree = ast.parse(path.read_text())
        names = {
            (node.module or "").split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
        } | {
            alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        for package in names & FAMILIES.keys():
            room, family, *_ = path.relative_to(PACKAGE).parts
            assert room == "potentials", path
            assert family in FAMILIES[package], (path, package)


def test_rooms_are_few() -> None:
    entries = {path.stem for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert entries == {*ROOMS, "__init__", "py"}  # py.typed


def test_importing_does_no_work() -> None:
    """``import labelwise`` loads neither torch nor ASE, and is quick."""
    code = (
        "import sys, labelwise; print(sorted({'torch', 'ase', 'mace', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_exist_and_are_few() -> None:
    assert len(labelwise.__all__) <= 40
    for name in labelwise.__all__:
        assert getattr(labelwise, name) is not None
    assert set(labelwise.__all__) <= set(dir(labelwise))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        labelwise.nothing  # noqa: B018
