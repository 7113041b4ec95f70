"""What a campaign chose, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from labelwise.campaign.atomic_io import read_json
from labelwise.campaign.state import BATCH, CampaignState
from labelwise.pages.document import Role
from labelwise.structures import Source

NEVER = -1
_ROLES = list(Role)


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


def read_candidates(state: CampaignState) -> tuple[Candidate, ...]:
    """Return all that was chosen, in order."""
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


@dataclass(frozen=True)
class PointFates:
    """What became of each point.

    Attributes:
        rounds: Round from which it counts as labelled, 0 for what was given; -1 if never, (n,).
        roles: Place in ``list(Role)``, (n,).
        words: The same in words, (n,).
        candidates: The choice of each chosen point.
    """

    rounds: Int32[np.ndarray, " n"]
    roles: np.ndarray
    words: tuple[str, ...]
    candidates: dict[int, Candidate]

    def labelled_before(self, n_round: int) -> Int64[np.ndarray, " k"]:
        """Return the points that were labelled when a round began."""
        counts = np.array([word in ("given", "chosen") for word in self.words], dtype=bool)
        is_labelled = (self.rounds >= 0) & (self.rounds < n_round) & counts
        found: Int64[np.ndarray, " k"] = np.flatnonzero(is_labelled).astype(np.int64)
        return found

    def chosen_in(self, n_round: int) -> Int64[np.ndarray, " k"]:
        """Return the points that a round added to the training set, ascending."""
        is_chosen = np.array([word == "chosen" for word in self.words], dtype=bool)
        return np.flatnonzero(is_chosen & (self.rounds == n_round)).astype(np.int64)


def find_fates(
    candidates: Sequence[Candidate], place: Mapping[Source, int], n_points: int, n_given: int
) -> PointFates:
    """Tell what became of each point."""
    rounds = np.full(n_points, NEVER, dtype=np.int32)
    roles = np.full(n_points, _ROLES.index(Role.POOL), dtype=np.uint8)
    words = ["pool"] * n_points
    rounds[:n_given] = 0
    roles[:n_given] = _ROLES.index(Role.LABELLED)
    words[:n_given] = ["given"] * n_given
    chosen: dict[int, Candidate] = {}
    for each in candidates:
        point = place.get(each.source)
        if point is None or each.fate == "reserve":
            continue
        chosen[point] = each
        if each.fate == "failed":
            words[point], roles[point] = "failed", _ROLES.index(Role.SCREENED)
        elif each.role != "train":
            words[point], roles[point] = "held out", _ROLES.index(Role.SCREENED)
        else:
            words[point] = "chosen" if each.fate == "labelled" else "waiting"
            rounds[point], roles[point] = each.n_round, _ROLES.index(Role.CHOSEN)
    return PointFates(rounds, roles, tuple(words), chosen)
