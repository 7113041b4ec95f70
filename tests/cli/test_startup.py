"""What the command line imports before it is needed: nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from labelwise.cli.building import make_command
from labelwise.cli.commands import COMMANDS, GROUPS

HEAVY = (
    "ase", "h5py", "jaxtyping", "lmdb", "mace", "matplotlib", "numpy", "pandas", "ray", "rdkit",
    "scipy", "torch", "zarr",
)  # fmt: skip
#: Mistakes that are told without computing anything, and the exit code.
MISTAKES = {
    "selct": 2,
    "select --poool pool.xyz": 2,
    "select -n 5": 2,
    "select --pool no-such-file.xyz -n 5": 1,
    "select --pool no-such-*.xyz -n 5": 1,
    "represent --pool no-such-file.xyz": 1,
    "plan no-such-file.xyz": 1,
    "finetune --train no-such-file.xyz --model demo": 1,
    "split --pool no-such-file.xyz --out sets": 1,
    "check-data --pool no-such-file.xyz --device gpu": 1,
    "report no-such-folder": 1,
    "figures no-such-folder --out figures": 1,
    "campaign run no-such-folder": 1,
    "campaign run . seed": 1,
    "campaign status no-such-folder": 1,
    "compare no-such-study.yaml": 1,
    "compare broken.yaml": 1,
}


def run_all(lines: list[str], folder: Path) -> list[dict[str, Any]]:
    """Run command lines in one process; return code and heavy modules after each."""
    program = f"""
import contextlib, io, json, sys
from labelwise.cli import main
done = []
for line in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(line.split())
    done.append({{"code": code, "heavy": sorted(set({HEAVY!r}) & set(sys.modules))}})
print(json.dumps(done))
"""
    command = [sys.executable, "-c", program]
    words = json.dumps(lines)
    done = subprocess.run(command, input=words, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    lines = [f"{words} --help".strip() for words in ("", *GROUPS, *COMMANDS)]
    for line, found in zip(lines, run_all(lines, tmp_path), strict=True):
        assert found == {"code": 0, "heavy": []}, line


def test_mistakes_are_told_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("methods: [a", encoding="utf-8")
    (tmp_path / "campaign.yaml").write_text("seed: 1", encoding="utf-8")
    found = run_all(list(MISTAKES), tmp_path)
    for (line, code), each in zip(MISTAKES.items(), found, strict=True):
        assert each == {"code": code, "heavy": []}, line


def test_keys_of_a_campaign_are_checked_without_torch(tmp_path: Path) -> None:
    text = "{model: {path: demo}, data: {pool: [a], train: [b]}, labeller: {kind: replay}}"
    (tmp_path / "campaign.yaml").write_text(text, encoding="utf-8")
    line = "campaign run . finetune.lrr=0.1"
    program = """
import sys
from labelwise.cli import main
code = main(sys.argv[1].split())
assert "torch" not in sys.modules
sys.exit(code)
"""
    command = [sys.executable, "-c", program, line]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "finetune.lrr: unknown key; did you mean 'learning_rate'?" in done.stderr


@pytest.mark.parametrize("words", COMMANDS)
def test_summaries_are_those_of_the_declarations(words: str) -> None:
    module, summary = COMMANDS[words]
    command = make_command(words)
    assert command.help.strip().splitlines()[0] == summary
    snake = words.replace(" ", "_").replace("-", "_")
    assert callable(getattr(import_module(f"labelwise.cli.{module}"), f"run_{snake}"))


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("labelwise sum", {"summarise"}),
        ("labelwise campaign s", {"status"}),
        ("labelwise select --store-d", {"--store-dtype"}),
        ("labelwise select --parameters e", {"embedding"}),
    ],
)
def test_shells_complete_without_heavy_imports(typed: str, offered: set[str]) -> None:
    program = """
import sys
from labelwise.cli import main
try:
    main([])
finally:
    assert "numpy" not in sys.modules and "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={
            "PYTHONPATH": ":".join(sys.path),
            "_LABELWISE_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        },
    )
    assert "Error" not in done.stderr
    assert {line.strip() for line in done.stdout.splitlines()} >= offered
