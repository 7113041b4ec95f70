"""``labelwise figures`` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelwise.cli import main
from labelwise.studies.comparison.report import write_report
from tests.studies.comparison.building import make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    cells = make_study(("random", "ntk-lcmd"), pools=["only"], n_rounds=3)
    write_report(folder, cells, title="A study", with_pictures=False)
    (folder / "study.yaml").write_text("title: A study\n", encoding="utf-8")
    return folder


def test_figures_of_a_study(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures"
    command = ["figures", str(study), "--out", str(out), "--format", "svg", "--grey"]
    assert main([*command, "--width", "175"]) == 0
    drawn = sorted(path.name for path in out.glob("*.svg"))
    printed = capsys.readouterr()
    assert f"figures: {len(drawn)}, tables: 4, listed in {out / 'figures.md'}" in printed.out
    assert "ratios-auc-f-to-reference.svg" in drawn
    assert "learning-curves-forces-rmse-only.svg" in drawn
    assert (out / "errors.csv").read_text(encoding="utf-8").startswith("method,campaigns,AUC E")
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "gif"], "format is 'gif'"),
        (["--width", "3"], "width is 3.0 mm"),
        (["--map", "tsne"], "tsne"),
    ],
)
def test_options_out_of_range(
    study: Path,
    tmp_path: Path,
    options: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["figures", str(study), "--out", str(tmp_path / "f"), *options]) in (1, 2)
    assert words in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


def test_nothing_to_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", str(tmp_path / "nowhere"), "--out", str(tmp_path / "f")]) == 1
    assert "there is no" in capsys.readouterr().err
