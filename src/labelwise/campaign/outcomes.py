"""What a campaign chose, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from labelwise.campaign.atomic_io import read_json
from labelwise.campaign.state import BATCH, CampaignState
from labelwise.pages.document import Role
from labelwise.structures import Source

NEVER = -1
_ROLES = {
    "given": Role.LABELLED,
    "pool": Role.POOL,
    "chosen": Role.CHOSEN,
    "waiting": Role.CHOSEN,
    "failed": Role.SCREENED,
    "held out": Role.SCREENED,
}


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
class PointOutcomes:
    """What became of each point of a map.

    Attributes:
        words: ``given``, ``pool``, ``chosen``, ``waiting``, ``failed`` or ``held out``, (n,).
        rounds: Round from which it counts as labelled, 0 for what was given; -1 if never, (n,).
        candidates: The choice of each chosen point.
    """

    words: np.ndarray
    rounds: Int32[np.ndarray, " n"]
    candidates: dict[int, Candidate]

    @property
    def roles(self) -> UInt8[np.ndarray, " n"]:
        """Place in ``list(Role)`` of each point's role on the map, (n,)."""
        every = list(Role)
        return np.array([every.index(_ROLES[word]) for word in self.words], dtype=np.uint8)

    def labelled_before(self, n_round: int) -> Int64[np.ndarray, " k"]:
        """Return the points that were labelled when a round began."""
        is_labelled = (self.rounds >= 0) & (self.rounds < n_round)
        return np.flatnonzero(is_labelled & np.isin(self.words, ("given", "chosen")))

    def chosen_in(self, n_round: int) -> Int64[np.ndarray, " k"]:
        """Return the points that a round added to the training set, ascending."""
        return np.flatnonzero((self.words == "chosen") & (self.rounds == n_round))


def find_outcomes(
    candidates: Sequence[Candidate], place: Mapping[Source, int], n_points: int, n_given: int
) -> PointOutcomes:
    """Tell what became of each point; the given training structures are the first of them."""
    is_given = np.arange(n_points) < n_given
    rounds = np.where(is_given, 0, NEVER).astype(np.int32)
    words = np.where(is_given, "given", "pool").astype(object)
    chosen = {
        place[each.source]: each
        for each in candidates
        if each.source in place and each.fate != "reserve"
    }
    for point, each in chosen.items():
        if each.fate == "failed":
            words[point] = "failed"
        elif each.role != "train":
            words[point] = "held out"
        else:
            words[point] = "chosen" if each.fate == "labelled" else "waiting"
            rounds[point] = each.n_round
    return PointOutcomes(words, rounds, chosen)
