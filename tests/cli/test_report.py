from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ase import Atoms

from labelwise.cli import main
from labelwise.structures import write_structures
from labelwise.studies.comparison.report import write_report
from tests.studies.comparison.building import make_study

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


def test_options_of_the_first_versions_have_no_effect(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", "out/batch.json", "--out", "page.html"]
    assert main(words) == 0
    page = (folder / "page.html").read_bytes()
    assert main([*words, "--model", "none.model", "--trust-model", "--device", "cuda"]) == 0
    assert "have no effect" in " ".join(capsys.readouterr().err.split())
    assert (folder / "page.html").read_bytes() == page
    assert main(["report", "--help"]) == 0
    assert "--trust-model" not in capsys.readouterr().out


def test_a_page_of_a_batch_or_a_study_imports_no_torch(folder: Path) -> None:
    cells = make_study(("random", "ntk-lcmd"), pools=["a", "b"], n_rounds=3)
    write_report(folder / "study", cells, title="A study", with_pictures=False)
    program = """
import sys
from labelwise.cli import main
for target in ("out/batch.json", "study"):
    assert main(["report", target, "--quiet"]) == 0
    assert not {"torch", "mace", "ray", "matplotlib"} & set(sys.modules), target
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "study" / "report.html").exists()
