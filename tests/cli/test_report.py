from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms

from labelwise.cli import main
from labelwise.structures import write_structures

SOAP = ["--representation", "soap", "--quiet"]


@pytest.fixture
def folder(tmp_path: Path, rattled_molecules: list[Atoms], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_structures("train.extxyz", rattled_molecules[:5])
    write_structures("pool.extxyz", rattled_molecules[5:])
    words = ["--pool", "pool.extxyz", "--train", "train.extxyz", "-n", "4", "--rule", "pv"]
    assert main(["select", *words, *SOAP, "--out", "out/batch.extxyz", "--report"]) == 0
    return tmp_path


@pytest.mark.parametrize("target", ["out/batch.json", "out/batch.extxyz", "out"])
def test_a_page_is_written_beside_what_it_tells_of(
    folder: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", target]) == 0
    page = folder / "out" / ("report.html" if target == "out" else "batch.html")
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "4 structures chosen of 25" in text
    assert str(page.relative_to(folder)) in capsys.readouterr().out


def test_options_reach_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", "out/batch.json", "--out", "page.html", "--quiet"]
    assert main([*words, "--colour-by", "family", "--seed", "3", "--max-megabytes", "5"]) == 0
    assert capsys.readouterr().out == ""
    assert 0 < (folder / "page.html").stat().st_size < 5e6
    assert main([*words, "--colour-by", "nothing"]) == 1
    assert "the columns of this pool are" in capsys.readouterr().err
    assert main([*words, "--map", "tsne"]) == 2


def test_what_is_there_is_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "pool.extxyz").read_bytes()
    assert main(["report", "out/batch.json", "--out", "pool.extxyz"]) == 1
    assert "is no page" in capsys.readouterr().err
    assert main(["report", "out/batch.json", "--out", "out/batch.json"]) == 1
    assert "is the input" in capsys.readouterr().err
    assert main(["report", "out/batch.json", "--out", "out"]) == 1
    assert "is a directory" in capsys.readouterr().err
    assert (folder / "pool.extxyz").read_bytes() == before
    assert main(["report", "nothing"]) == 1
    assert "there is no nothing" in capsys.readouterr().err
