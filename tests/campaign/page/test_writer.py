from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labelwise.campaign.loop import RunOptions, run_campaign
from labelwise.campaign.page.writer import CampaignPages
from labelwise.campaign.predictions import PREDICTIONS, read_predictions
from labelwise.campaign.state import CampaignState, read_state
from labelwise.campaign.survey import survey_campaign
from tests.campaign.building import result_of, write_campaign

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


def test_a_page_after_each_round(files: Path, tmp_path: Path) -> None:
    directory = write_campaign(tmp_path / "c", files)
    said: list[str] = []
    sizes: list[int] = []
    pages = CampaignPages(directory, enabled=True, warn=said.append)

    def after_round(state: CampaignState) -> None:
        assert (state.round_folder(state.n_round - 1) / PREDICTIONS).exists()
        pages.write_round(state)
        assert pages.is_written
        sizes.append(pages.path.stat().st_size)

    run_campaign(directory, RunOptions(n_rounds=1, survey=True), after_round=after_round)
    assert said == []
    assert len(sizes) == 2
    plain = write_campaign(tmp_path / "d", files)
    run_campaign(plain, RunOptions(n_rounds=1))
    assert result_of(directory) == result_of(plain)
    assert not (plain / "report.html").exists()
    assert not (plain / "report").exists()


def test_predictions_of_a_run_are_those_that_models_on_disk_give(
    copied: Callable[[], Path],
) -> None:
    directory = copied()
    paths = [directory / f"round_00{n}" / PREDICTIONS for n in (0, 1, 2)]
    by_run = [read_predictions(path) for path in paths]
    assert [set(found) for found in by_run] == [
        {"valid", "test"}, {"valid", "test", "chosen"}, {"valid", "test", "chosen"},
    ]  # fmt: skip
    for path in paths:
        path.unlink()
    survey_campaign(read_state(directory))
    for path, expected in zip(paths, by_run, strict=True):
        found = read_predictions(path)
        assert found.keys() == expected.keys()
        for role, each in found.items():
            np.testing.assert_array_equal(each.places, expected[role].places)
            np.testing.assert_allclose(each.energies, expected[role].energies, rtol=1e-6)
            for one, other in zip(each.forces, expected[role].forces, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


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
