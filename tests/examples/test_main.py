"""The script, as a reader runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from labelwise.cli import main
from labelwise.structures import read_structures

EXAMPLE = Path(__file__).parents[2] / "examples" / "slabs"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_slabs_are_made_and_chosen_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("slabs", "--size", "30")
    assert done.returncode == 0, done.stderr
    assert "slabs/pool.extxyz" in done.stdout
    (command,) = [line for line in done.stderr.splitlines() if "now try: " in line]
    words = command.split("now try: labelwise ")[1].replace("-n 100", "-n 3").split()
    assert main([*words, "-q"]) == 0
    batch = read_structures("slabs/batch.extxyz")
    assert len(batch) == 3
    assert all(atoms.constraints and atoms.pbc.all() for atoms in batch)
    again = run("slabs", "--size", "30")
    assert again.returncode == 1
    assert "exists" in again.stderr
