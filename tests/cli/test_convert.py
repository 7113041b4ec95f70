"""``labelwise convert``: another kind of file, the same model."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelwise.cli import main
from labelwise.potentials import load_potential


def test_a_pickle_becomes_weights_alone(
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["convert", str(model_path), "--out", "x.pt"]
    assert main(words) == 1
    assert "--trust-model" in capsys.readouterr().err
    assert main([*words, "--trust-model"]) == 0
    assert "x.pt" in capsys.readouterr().out
    written = load_potential("x.pt")
    assert written.content_hash == load_potential(model_path, trust=True).content_hash
    assert main([*words, "--trust-model"]) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--trust-model", "--force", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_another_ending_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "demo", "--out", "demo.bin"]) == 1
    assert ".model or .pt" in capsys.readouterr().err
    assert not Path("demo.bin").exists()
