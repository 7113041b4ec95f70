"""What became of each structure that a campaign's map shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from labelwise.campaign.saved import Candidate
from labelwise.pages.document import Role
from labelwise.structures import Source

NEVER = -1
_ROLES = list(Role)


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
    """Tell what became of each point.

    Args:
        candidates: All that was chosen.
        place: Point of each source of the pool.
        n_points: Points, given training structures first.
        n_given: How many of these.
    """
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
