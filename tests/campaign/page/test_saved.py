from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from labelwise.campaign.lock import LOCK_FILE, campaign_lock
from labelwise.campaign.saved import SavedCampaign, read_saved
from labelwise.campaign.state import read_state
from tests.campaign.building import write_campaign


def test_every_candidate_has_a_fate(saved: SavedCampaign) -> None:
    state = saved.state
    fates = {each.fate for each in saved.candidates}
    assert fates <= {"labelled", "failed", "reserve"}
    for n_round in (1, 2):
        batch = json.loads((state.round_folder(n_round) / "batch.json").read_text())
        chosen = [c for c in saved.candidates if c.n_round == n_round]
        labelled = [c.key for c in chosen if c.role == "train" and c.fate == "labelled"]
        assert labelled == batch["batch"]["train"] == state.keys_of_round(n_round, "train")
        failed = [c.key for c in chosen if c.fate == "failed"]
        assert failed == batch["failed"]
    assert len(state.failures) > 0
    ranks = [each.rank for each in saved.candidates if each.n_round == 1]
    assert ranks == list(range(len(ranks)))


def test_further_lists_go_on_counting(saved: SavedCampaign) -> None:
    folder = saved.state.round_folder(1)
    n_listed = sum(
        len(json.loads(path.read_text())["candidates"]["train"])
        for path in folder.glob("picks*.json")
    )
    found = [each for each in saved.candidates if each.n_round == 1]
    assert len(found) == n_listed
    assert len({each.key for each in found}) == n_listed


def test_times_of_finished_and_unfinished_rounds(saved: SavedCampaign) -> None:
    assert sorted(saved.stages) == [0, 1, 2]
    assert {"select", "label", "finetune", "measure"} <= set(saved.stages[1])
    assert set(saved.seconds) == {*saved.state.labels, *saved.state.failures}


def test_a_campaign_that_has_stopped_says_why(saved: SavedCampaign) -> None:
    assert (saved.situation.word, saved.situation.detail) == ("stopped", "2 rounds are done")
    told = read_saved(saved.state, stopped="1 rounds are done")
    assert told.situation.detail == "1 rounds are done"


def test_a_campaign_between_rounds_or_within_one(copied: Callable[[], Path]) -> None:
    directory = copied()
    state = read_state(directory)
    longer = replace(state, rounds=state.rounds[:2])
    for name in ("measure.json", "finetune.json"):
        (directory / "round_002" / name).unlink()
    assert read_saved(longer).situation.word == "interrupted"
    assert "finetune" in read_saved(longer).situation.detail
    for path in (directory / "round_002").iterdir():
        path.unlink()
    assert read_saved(longer).situation.word == "between rounds"


def test_who_runs_it(copied: Callable[[], Path]) -> None:
    directory = copied()
    with campaign_lock(directory):
        assert read_saved(read_state(directory)).situation.word == "running"
    assert read_saved(read_state(directory)).situation.word == "stopped"
    dead = {"pid": 2**22 + 1, "host": socket.gethostname(), "user": "u", "started": "",
            "boot": "", "born": 1, "token": ""}  # fmt: skip
    (directory / LOCK_FILE).write_text(json.dumps(dead))
    assert read_saved(read_state(directory)).situation.word == "stopped"
    dead["pid"], dead["born"] = os.getpid(), 0
    (directory / LOCK_FILE).write_text(json.dumps(dead))
    assert read_saved(read_state(directory)).situation.word == "running"


def test_a_campaign_that_has_not_begun(files: Path, tmp_path: Path) -> None:
    directory = write_campaign(tmp_path / "c", files)
    found = read_saved(read_state(directory))
    assert found.situation.word == "not begun"
    assert found.candidates == ()
    assert found.scored_role == ""
