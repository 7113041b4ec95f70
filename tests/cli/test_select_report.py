from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase import Atoms

from labelwise.cli import main
from labelwise.structures import write_structures


@pytest.fixture
def run(
    tmp_path: Path,
    rattled_molecules: list[Atoms],
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    write_structures("train.extxyz", rattled_molecules[:5])
    write_structures("pool.extxyz", rattled_molecules[5:])

    def call(*words: str) -> int:
        model = ["--model", str(model_path), "--trust-model"]
        files = ["--pool", "pool.extxyz", "--train", "train.extxyz", "-n", "3"]
        return main(["select", *model, *words, *files])

    return call


def test_the_page_goes_beside_the_batch_or_where_it_is_told(
    run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--out", "a.extxyz", "--report") == 0
    assert "page:    a.html" in capsys.readouterr().out
    assert "3 structures chosen of 25" in (tmp_path / "a.html").read_text()
    assert run("--report", "pages/b.html", "--quiet") == 0
    assert (tmp_path / "pages" / "b.html").is_file()
    assert not (tmp_path / "batch.html").exists()
    assert run("--out", "c.extxyz", "--quiet") == 0
    assert not (tmp_path / "c.html").exists()


def test_a_page_does_not_change_the_choice(run, tmp_path: Path) -> None:
    assert run("--out", "a.extxyz", "--report", "--quiet") == 0
    assert run("--out", "b.extxyz", "--quiet") == 0
    picks = [json.loads((tmp_path / f"{name}.json").read_text())["picks"] for name in "ab"]
    assert picks[0] == picks[1]
    assert (tmp_path / "a.extxyz").read_bytes() == (tmp_path / "b.extxyz").read_bytes()


def test_the_page_is_the_same_when_it_is_made_later(run, tmp_path: Path) -> None:
    assert run("--report", "--quiet") == 0
    page = (tmp_path / "batch.html").read_bytes()
    words = ["report", "batch.json", "--trust-model", "--out", "again.html", "--quiet"]
    assert main(words) == 0
    assert (tmp_path / "again.html").read_bytes() == page


def test_a_page_of_stored_rows(run, tmp_path: Path) -> None:
    assert run("--store", "store", "--report", "--quiet") == 0
    assert "3 structures chosen of 25" in (tmp_path / "batch.html").read_text()
    record = json.loads((tmp_path / "batch.json").read_text())
    assert record["inputs"]["store"] == "store"
    assert record["inputs"]["files"]["pool"][0]["file"] == "pool.extxyz"


def test_a_page_over_an_input_is_refused(
    run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tmp_path / "pool.extxyz").read_bytes()
    assert run("--report", "pool.extxyz") == 1
    assert "is one of the inputs" in capsys.readouterr().err
    assert run("--report", "batch.json") == 1
    assert "--report is the same file as" in capsys.readouterr().err
    assert (tmp_path / "pool.extxyz").read_bytes() == before
    assert not (tmp_path / "batch.extxyz").exists()
