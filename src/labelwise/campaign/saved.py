"""What the files of a campaign say, as they are read for a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelwise.campaign.atomic_io import read_json, read_log
from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.context import count_left
from labelwise.campaign.errors import CampaignError
from labelwise.campaign.lock import is_stale, read_holder
from labelwise.campaign.state import (
    BATCH,
    FINETUNE,
    INVENTORY,
    JOURNAL,
    CampaignState,
)
from labelwise.campaign.status import Status, get_status
from labelwise.campaign.stopping import find_reason_to_stop
from labelwise.structures import Source


@dataclass(frozen=True)
class Candidate:
    """A structure of the pool that a round chose.

    Attributes:
        n_round: The round.
        role: ``train``, ``valid`` or ``test``.
        rank: Place in the order of choice, from 0; further lists go on counting.
        key: Content hash.
        source: File and frame, as the campaign names them.
        score: What the rule saw, in its unit.
        fate: ``labelled``, ``failed``, ``waiting`` for its label, or ``reserve``.
    """

    n_round: int
    role: str
    rank: int
    key: str
    source: Source
    score: float
    fate: str


@dataclass(frozen=True)
class Situation:
    """What a campaign does at present.

    Attributes:
        word: ``not begun``, ``running``, ``waiting for labels``, ``stopped``, ``between rounds``
            or ``interrupted``.
        detail: Why, or where.
    """

    word: str
    detail: str


@dataclass(frozen=True)
class SavedCampaign:
    """A campaign as its files tell it.

    Attributes:
        state: The campaign.
        status: Counts, times, forecast.
        situation: What it does at present.
        candidates: All that was chosen, in order.
        histories: ``finetune.json`` of each round that has it, by round.
        stages: Seconds by stage, by round, the unfinished round's among them.
        seconds: Wall time of each calculation, by content hash.
        inventory: ``inventory.json``; empty before it was made.
    """

    state: CampaignState
    status: Status
    situation: Situation
    candidates: tuple[Candidate, ...]
    histories: dict[int, dict[str, Any]]
    stages: dict[int, dict[str, float]]
    seconds: dict[str, float]
    inventory: dict[str, Any]

    @property
    def config(self) -> CampaignConfig:
        """The campaign's configuration."""
        return self.state.config

    @property
    def n_finished(self) -> int:
        """Rounds that are finished, round 0 among them."""
        return len(self.state.rounds)

    @property
    def scored_role(self) -> str:
        """The set whose errors are shown: ``test``, else ``valid``, else nothing."""
        found = {role for record in self.state.rounds for role in record["errors"]}
        return next((role for role in ("test", "valid") if role in found), "")


def read_saved(state: CampaignState, *, stopped: str = "", check: bool = True) -> SavedCampaign:
    """Read what a page tells of a campaign; nothing is written, and it may be running.

    Args:
        state: The campaign.
        stopped: Why it has just stopped, where that is known.
        check: Whether to look for files that are not what the campaign wrote.

    Raises:
        DamagedStateError: A file is not what the campaign wrote.
        ReadError: The file of structures that wait for labels cannot be read.
    """
    directory = state.directory
    path = directory / INVENTORY
    inventory = read_json(path) if path.exists() else {}
    events = read_log(directory / JOURNAL)
    calculations = [event for event in events if event.get("event") == "calculation"]
    status = get_status(state, check=check)
    return SavedCampaign(
        state,
        status,
        _describe_situation(state, status, inventory, stopped),
        read_candidates(state),
        dict(_iter_histories(state)),
        _sum_stages(state, events),
        {event["key"]: float(event["seconds"]) for event in calculations},
        inventory,
    )


def _describe_situation(
    state: CampaignState, status: Status, inventory: dict[str, Any], stopped: str
) -> Situation:
    holder = None
    with suppress(CampaignError):  # a lock that cannot be read tells nothing
        holder = read_holder(state.directory)
    if stopped:
        return Situation("stopped", stopped)
    if holder is not None and not is_stale(holder):
        return Situation("running", status.next)
    if status.waiting_file:
        return Situation("waiting for labels", f"{status.n_waiting} structures")
    if not state.has_begun:
        return Situation("not begun", "")
    reason = find_reason_to_stop(state, n_left=count_left(state, inventory))
    if reason is not None:
        return Situation("stopped", reason)
    is_between = state.stage == "select" and bool(state.rounds)
    return Situation("between rounds" if is_between else "interrupted", f"next: {status.next}")


def read_candidates(state: CampaignState) -> tuple[Candidate, ...]:
    """Return all that was chosen, in order.

    Raises:
        DamagedStateError: A file is not what the campaign wrote.
    """
    return tuple(_iter_candidates(state))


def _iter_candidates(state: CampaignState) -> Iterator[Candidate]:
    for n_round in range(state.n_round + 1):
        folder = state.round_folder(n_round)
        path = folder / BATCH
        batch = read_json(path)["batch"] if path.exists() else None
        lists = [read_json(each) for each in sorted(folder.glob("picks*.json"), key=_list_number)]
        for role in lists[0]["candidates"] if lists else ():
            chosen = [each for found in lists for each in found["candidates"].get(role, ())]
            n_wanted = int(lists[0]["wanted"].get(role, len(chosen)))
            keys = [each["key"] for each in chosen]
            done = None if batch is None else set(batch.get(role, ()))
            fates = _find_fates(state, keys, n_wanted, done)
            for rank, (each, fate) in enumerate(zip(chosen, fates, strict=True)):
                source = Source(each["file"], int(each["frame"]))
                score = float(each["score"])
                yield Candidate(n_round, role, rank, each["key"], source, score, fate)


def _list_number(path: Path) -> int:
    """Return 1 for ``picks.json`` and n for ``picks_n.json``."""
    number = path.stem.rpartition("_")[2]
    return int(number) if number.isdigit() else 1


def _find_fates(
    state: CampaignState, keys: list[str], n_wanted: int, batch: set[str] | None
) -> list[str]:
    """Return what became of each candidate; as many wait as labels are still wanted."""
    n_open = n_wanted - sum(key in state.labels for key in keys)
    fates = []
    for key in keys:
        if key in state.failures:
            fates.append("failed")
        elif key in (state.labels if batch is None else batch):
            fates.append("labelled")
        elif batch is None and n_open > 0:
            fates.append("waiting")
            n_open -= 1
        else:
            fates.append("reserve")
    return fates


def _iter_histories(state: CampaignState) -> Iterator[tuple[int, dict[str, Any]]]:
    for n_round in range(state.n_round + 1):
        path = state.round_folder(n_round) / FINETUNE
        if path.exists():
            yield n_round, read_json(path)


def _sum_stages(state: CampaignState, events: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Return seconds of each stage; those of the round under way are in the journal alone."""
    stages: dict[int, dict[str, float]] = {
        record["round"]: {name: float(each["seconds"]) for name, each in record["stages"].items()}
        for record in state.rounds
    }
    for event in events:
        if event.get("event") == "stage" and event["round"] >= len(state.rounds):
            entry = stages.setdefault(event["round"], {})
            name = event["stage"]
            entry[name] = entry.get(name, 0.0) + float(event["seconds"])
    return stages
