"""Wrong words for flags, at every command that has flags of given words."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import write

from labelwise.cli.app import run

_CHOICE = {
    "--representation": "ntk_e",
    "--reduction": "feilds",
    "--parameters": "embeding",
    "--normalise": "Cosin",
    "--n-probes": "eight",
}
_MODEL = {"--device": "cudaa", "--dtype": "float46"}
WRONG = {
    "select --pool {xyz} -n 1 --model demo": {
        **_CHOICE,
        **_MODEL,
        "--rule": "lmcd",
        "--store-dtype": "float61",
    },
    "represent --pool {xyz} --model demo --out {new}.npz": {
        **{flag: word for flag, word in _CHOICE.items() if flag != "--normalise"},
        **_MODEL,
    },
    "plan {xyz} --model demo -n 1": {**_CHOICE, **_MODEL, "--rule": "lmcd"},
    "summarise --pool {xyz} -n 1 --model demo": {**_CHOICE, **_MODEL, "--rule": "herdding"},
    "split --pool {xyz} --out {new} --model demo": {**_CHOICE, **_MODEL, "--rule": "herdding"},
    "check-data --pool {xyz} --model demo": {**_CHOICE, **_MODEL},
    "finetune --train {xyz} --model demo": {
        **_MODEL,
        "--schedule": "fixd",
        "--start": "scratchy",
        "--reference-energies": "atuo",
    },
    "geometry --pool {xyz} --model demo --group-by family --out {new}": {
        "--representations": "ntk-e,actvation",
        "--parameters": "embeding",
    },
    "calibrate --pool {xyz} --valid {xyz} --test {xyz} --model demo --out {new}": {
        "--representations": "ntk-e,actvation",
        "--references": "prefiks",
        "--normalise": "Cosin",
    },
    "compare --preset pool-bias --out {new}": {"--shift": "famly"},
    "compare --out {new}": {"--preset": "reaction-natura"},
    "figures {new} --out {new}": {"--format": "pgn"},
    "data inspect {xyz}": {"--format": "mace-extxzy"},
    "data export {xyz} --out {new}": {"--to": "omoll"},
    "data build t1x-natura {xyz} --out {new}": {"--seed": "0"},
}
CASES = [(command, flag, word) for command, flags in WRONG.items() for flag, word in flags.items()]


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    write(tmp_path / "water.xyz", molecule("H2O"))
    return {"xyz": str(tmp_path / "water.xyz"), "new": str(tmp_path / "new")}


@pytest.mark.parametrize(("command", "flag", "word"), CASES)
def test_a_wrong_word_is_a_wrong_flag(
    command: str,
    flag: str,
    word: str,
    paths: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert run([part.format(**paths) for part in command.split()] + [flag, word]) == 2
    told = " ".join(capsys.readouterr().err.split())
    if flag == "--n-probes":
        assert "give an integer of at least 1, or 'exact'" in told
    else:
        assert "allowed are" in told or "is not one of" in told
        assert "did you mean" in told
    assert sorted(tmp_path.iterdir()) == before


def test_a_word_that_resembles_none_is_told_what_is_allowed(
    paths: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["select", "--pool", paths["xyz"], "-n", "1", "--rule", "qqq"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "rule is 'qqq'; allowed are joint-pv, k-center, lcmd, pv, random, target, top" in told
    assert "did you mean" not in told


@pytest.mark.parametrize("word", [["--probes", "few"], ["--probes=few"]])
def test_an_old_name_of_an_option_is_taken_and_not_shown(
    word: list[str], paths: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["select", "--pool", paths["xyz"], "-n", "1", *word]) == 2
    assert "--n-probes is 'few'" in capsys.readouterr().err
    assert run(["select", "--help"]) == 0
    assert "--probes" not in capsys.readouterr().out


def test_a_wrong_number_of_structures_is_no_wrong_flag(paths: dict[str, str]) -> None:
    words = ["select", "--pool", paths["xyz"], "-n", "9", "--rule", "random", "--quiet"]
    assert run(words) == 1
