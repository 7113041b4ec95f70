"""``labelwise calibrate`` as a user runs it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from ase.io import read

from labelwise.cli import main
from labelwise.structures import write_structures
from labelwise.structures.demo_data import demo_file_content

BASE = ["calibrate", "--model", "demo", "--device", "cpu", "--out", "out"]
FILES = ["--pool", "pool.extxyz", "--valid", "valid.extxyz", "--test", "test.extxyz"]
SMALL = ["--representations", "activation", "--max-labels", "16", "--n-bins", "3"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, n in (("pool.extxyz", 20), ("valid.extxyz", 6), ("test.extxyz", 8)):
        text = io.StringIO(demo_file_content(name).decode())
        structures = read(text, ":", format="extxyz")
        write_structures(name, structures[:: len(structures) // n][:n])


@pytest.mark.parametrize("repeats", ["1", "3"])
def test_table_and_files(repeats: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    words = [*BASE, *FILES, *SMALL, "--representations", "activation,ntk-e", "--n-repeats", repeats]
    assert main(words) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[:3] == ["kernel", "n", "NLL"]
    assert [line.split()[0] for line in shown[2:4]] == ["activation", "ntk-e"]
    assert max(map(len, shown)) <= 80 and ("±" in shown[2]) == (repeats == "3")
    names = {path.name for path in Path("out").iterdir()}
    assert names == {
        "calibration.csv", "calibration.md", "calibration.json", "reliability.png",
        "reliability.svg", "prefixes.png", "prefixes.svg", "kernels",
    }  # fmt: skip


def test_it_goes_on_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, *FILES, *SMALL, "-q"]) == 0
    assert capsys.readouterr().out == ""
    before = Path("out/kernels/activation.json").stat().st_mtime_ns
    assert main([*BASE, *FILES, *SMALL, "--representations", "activation,ntk-e", "--json"]) == 0
    out = capsys.readouterr().out
    assert out == Path("out/calibration.json").read_text()
    content = json.loads(out)
    assert content["resumed"] == ["activation"] and len(content["kernels"]) == 2
    assert content["inputs"]["pool"] == ["pool.extxyz"]
    assert Path("out/kernels/activation.json").stat().st_mtime_ns == before
    assert main([*BASE, *FILES, *SMALL, "--seed", "1"]) == 1
    assert "seed was 0 and is 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words,code,message",
    [
        (["--representations", "soup"], 2, "kernel is 'soup'; allowed are activation"),
        (["--representations", ","], 1, "kernels are none"),
        (["--kernel", "ntk-e"], 2, "No such option"),
        (["--n-initial", "1"], 2, "--n-initial"),
        (["--energy-key", "dft"], 1, "pool.extxyz@0: label 'dft' is missing"),
        (["--references", "guess"], 2, "references is 'guess'"),
        (["--n-probes", "0"], 2, "--n-probes is '0'"),
        (["--test", "pool.extxyz@15:"], 1, "is pool structure 15, too"),
    ],
)
def test_wrong_words(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, *FILES, *SMALL, *words]) == code
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("out").exists()


def test_a_validation_set_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, *FILES[:2], *FILES[4:], *SMALL]) == 2
    assert "--valid" in capsys.readouterr().err
