"""The README's example runs as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from labelwise.cli import main
from labelwise.structures import read_structures

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_python_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    capsys.readouterr()
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(code.strip().splitlines()) <= 20
    exec(compile(code, "README.md", "exec"), {})  # our own text
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0 pool@")
    assert len(read_structures("batch.extxyz")) == 20


@pytest.mark.parametrize(
    "command", re.findall(r"^labelwise select (?:[^\n]*\\\n)*[^\n]*", README, flags=re.MULTILINE)
)
def test_the_command_line_examples_are_valid(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    command = command.replace("\\\n", " ").replace(" [POOL ...]", "").replace("-n 100", "-n 5")
    words = [*shlex.split(command, comments=True), "--out", "batch.extxyz"]
    values = {"MODEL": "demo", "TRAIN": "demo/train.extxyz", "POOL": "demo/pool.extxyz@::40"}
    assert main([values.get(word, word) for word in words[1:]]) == 0
    assert len(read_structures("batch.extxyz")) == 5


@pytest.mark.parametrize("page", ["README.md", *sorted(p.name for p in (ROOT / "docs").glob("*"))])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page if page == "README.md" else ROOT / "docs" / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


ROW = re.compile(r"^\| (?P<said>.+?) \| (?P<shown>.*(?:test_|measured: ).*) \|$", re.MULTILINE)
SHOWN = ROW.findall((ROOT / "docs" / "testing.md").read_text().partition("## What the README")[2])


def test_every_test_that_is_named_exists() -> None:
    """docs/testing.md names a test for what the README says."""
    for said, shown in SHOWN:
        for part in shown.split("; "):
            path, *names = re.findall(r"`([\w/]*test_\w+(?:\.py)?)`", part) or [""]
            source = (ROOT / path).read_text() if path else ""
            missing = [name for name in names if f"def {name}(" not in source]
            assert missing == [], f"{said}: {path}"


def test_what_is_quoted_is_in_the_readme() -> None:
    readme = " ".join(README.split())
    assert [said for said, _ in SHOWN if said not in readme] == []
    commands = set(re.findall(r"\| (`labelwise [\w-]+`) \|", README))
    assert commands <= {said for said, _ in SHOWN}
