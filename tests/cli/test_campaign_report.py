"""``labelwise campaign run`` writes the campaign's page."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelwise.cli import main
from tests.campaign.building import write_campaign, write_data

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_data(folder, n_pool=10)
    return folder


def test_the_page_is_written_and_named(files: Path, tmp_path: Path, capsys) -> None:
    directory = write_campaign(tmp_path / "c", files, stop={"rounds": 0})
    assert main(["campaign", "run", str(directory), "--no-report"]) == 0
    assert not (directory / "report.html").exists()
    assert "page:" not in capsys.readouterr().err
    assert main(["campaign", "run", str(directory), "--rounds", "1"]) == 0
    assert f"page: {directory / 'report.html'}" in capsys.readouterr().err.replace("\n", "")
    assert (directory / "report.html").read_text().lower().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_fails_nothing(files: Path, tmp_path: Path, capsys) -> None:
    directory = write_campaign(tmp_path / "c", files, stop={"rounds": 1})
    (directory / "report.html").mkdir()
    assert main(["campaign", "run", str(directory)]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("no page of the campaign") == 1
    assert "page:" not in shown.err
    assert "finished: 1 rounds are done" in shown.out


def test_a_campaign_that_waits_or_fails_has_a_page(tmp_path: Path, capsys) -> None:
    write_data(tmp_path / "data", labelled=False, n_pool=8)
    directory = write_campaign(
        tmp_path / "c", tmp_path / "data", labeller={"kind": "files"}, stop={"rounds": 1}
    )
    assert main(["campaign", "run", str(directory), "--rounds", "1"]) == 4
    assert f"page: {directory / 'report.html'}" in capsys.readouterr().err.replace("\n", "")
    failing = {"kind": "replay", "max_failures_in_a_row": 3}
    directory = write_campaign(tmp_path / "d", tmp_path / "data", labeller=failing)
    assert main(["campaign", "run", str(directory)]) == 1
    assert "3 calculations in a row failed" in capsys.readouterr().err
    assert (directory / "report.html").exists()
