"""Help that a chemist can read: plain words, a text for every option, examples that run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from labelwise.cli.app import app, fill_in_values, run, spread_many_valued
from labelwise.cli.help import EXAMPLES
from labelwise.structures.demo_data import write_demo_files


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    yield " ".join(words), command
    for name, below in getattr(command, "commands", {}).items():
        yield from walk(below, (*words, name))


COMMANDS = dict(walk(typer.main.get_command(app)))
#: Examples that take less than two seconds and need nothing but the files of the demo.
QUICK = (
    "labelwise models",
    "labelwise data list",
    "labelwise data inspect pool.extxyz",
    "labelwise demo demo",
    "labelwise campaign init my-campaign --template",
    "labelwise split --pool pool.extxyz --by random --test-fraction 0.2 --out sets",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_plain_words_and_an_example(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert not re.search(r"<\w+( range)?>|<list|<\w+\|", shown), shown
    assert "…" not in shown, "a name or a default is cut"
    lines = [line.strip() for line in shown.splitlines()]
    for flag in ("--help", "--quiet", "--json", "--force", "--version", "--compile"):
        for line in lines:
            if f" {flag} " in line:
                assert not re.search(rf"{flag}\b.*(<|BOOL|TEXT)", line), line
    for example in EXAMPLES[name]:
        assert example in lines or len(example) > 78, "an example must not be broken"
        assert " ".join(example.split()) in " ".join(shown.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_text(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert (parameter.help or "").strip(), f"{name}: {parameter.opts} has no help"


def test_every_example_belongs_to_a_command() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    for name, examples in EXAMPLES.items():
        assert examples
        if name not in ("", "campaign", "data"):  # groups show their commands
            assert all(example.startswith(f"labelwise {name}") for example in examples)


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_are_parsed(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_demo_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for part in example.split(" && "):
        program, *words = shlex.split(part)
        if program == "cd":
            continue
        assert program == "labelwise"
        command, name = COMMANDS[""], ""
        while hasattr(command, "commands"):
            name = f"{name} {words.pop(0)}".strip()
            command = COMMANDS[name]
        given = spread_many_valued(fill_in_values(words))
        command.make_context(name, given)  # a flag that is not there raises
        for word in words:
            if word.endswith(".extxyz") and words[words.index(word) - 1] not in ("--out", "-o"):
                assert Path(word).exists(), f"{word} is not among the files of the demo"


@pytest.mark.parametrize("example", QUICK)
def test_quick_examples_run(
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert any(example in lines for lines in EXAMPLES.values())
    write_demo_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    code = run(shlex.split(example)[1:])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["selct"], "Did you mean 'select'"),
        (["campaign", "statsu"], "Did you mean 'status'"),
        (["select", "--pol", "a.xyz"], "--pool"),
    ],
)
def test_a_misspelt_command_is_told_what_was_meant(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [("", 2), ("campaign", 2), ("help", 0), ("--help", 0), ("help campaign", 0)],
)
def test_help_is_given_however_it_is_asked_for(
    words: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words.split()) == code
    shown = capsys.readouterr().out
    assert "Commands" in shown
    assert "Usage: labelwise" in shown


def test_the_package_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "labelwise", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d+\S*\n", done.stdout)


def test_old_names_of_options_go_on_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_demo_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["split", "--pool", "train.extxyz", "--by", "random", "--test-fraction", "0.3", "-q"]
    assert run([*words, "--out-dir", "old"]) == 0
    assert run([*words, "--out-dir=older"]) == 0
    assert run([*words, "--out", "new"]) == 0
    made = [(Path(name) / "test.extxyz").read_bytes() for name in ("old", "older", "new")]
    assert made[0] == made[1] == made[2]
