from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labelwise.campaign.loop import RunOptions, run_campaign
from labelwise.campaign.page.pages import CampaignPages
from tests.campaign.building import result_of, write_campaign

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


def test_a_page_after_each_round(files: Path, tmp_path: Path) -> None:
    """What the stage measure has predicted already is not predicted again."""
    directory = write_campaign(tmp_path / "c", files)
    said: list[str] = []
    sizes: list[int] = []
    pages = CampaignPages(directory, enabled=True, warn=said.append)

    def after_round(state, bench) -> None:  # type: ignore[no-untyped-def]
        assert set(bench.measured) == {(state.n_round - 1, "valid"), (state.n_round - 1, "test")}
        pages.write_round(state, bench)
        assert pages.is_written
        sizes.append(pages.path.stat().st_size)

    run_campaign(directory, RunOptions(n_rounds=1), after_round=after_round)
    assert said == []
    assert len(sizes) == 2
    plain = write_campaign(tmp_path / "d", files)
    run_campaign(plain, RunOptions(n_rounds=1))
    assert result_of(directory) == result_of(plain)
    assert not (plain / "report.html").exists()


def test_predictions_of_a_run_are_those_that_models_on_disk_give(
    files: Path, tmp_path: Path
) -> None:
    directory = write_campaign(tmp_path / "c", files)
    pages = CampaignPages(directory, enabled=True, warn=pytest.fail)
    run_campaign(directory, RunOptions(n_rounds=1), after_round=pages.write_round)
    names = {f"round_00{n}_{role}.npz" for n in (0, 1) for role in ("test", "valid")}
    by_run = {name: dict(np.load(directory / "report" / name)) for name in names}
    for path in (directory / "report").iterdir():
        path.unlink()
    CampaignPages(directory, enabled=True, warn=pytest.fail).write()
    for name, expected in by_run.items():
        found = np.load(directory / "report" / name)
        assert str(found["made_of"]) == str(expected["made_of"])
        for key in ("energies", "forces"):
            assert found[key] == pytest.approx(expected[key], rel=1e-5, abs=1e-5)


def test_what_goes_wrong_is_said_once_and_raises_nothing(copied: Callable[[], Path]) -> None:
    directory = copied()
    said: list[str] = []
    pages = CampaignPages(directory, enabled=True, warn=said.append)
    (directory / "report.html").mkdir()
    pages.write()
    pages.write()
    assert len(said) == 1
    assert "no page of the campaign: cannot write" in said[0]
    assert not pages.is_written
    (directory / "rounds.jsonl").write_text('{"round": 5}\n')
    pages.write()
    assert len(said) == 2


def test_nothing_is_written_unless_wanted(copied: Callable[[], Path]) -> None:
    directory = copied()
    pages = CampaignPages(directory, enabled=False, warn=lambda _text: None)
    pages.write()
    assert not pages.is_written
    assert not pages.path.exists()
    assert not (directory / "report").exists()
