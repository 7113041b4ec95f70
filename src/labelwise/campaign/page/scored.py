"""The test set as the models of several rounds see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelwise.campaign.context import CampaignContext
from labelwise.campaign.page.labelled_sets import (
    LabelledFrames,
    StructureErrors,
    held_out_set,
    measure_errors,
)
from labelwise.campaign.pool_map import MOST_ROUNDS, spread_evenly
from labelwise.campaign.predictions import PREDICTIONS, Predictions, read_predictions
from labelwise.campaign.saved import SavedCampaign


@dataclass(frozen=True)
class ScoredSet:
    """A held-out set and what the models of some rounds predict for it.

    Attributes:
        labelled: The set, n structures.
        rounds: Rounds in ascending order, (r,).
        predictions: Of each of them.
        errors: Of each of them.
        structure: Place of each structure among those of the page, -1 if it has none, (n,).
    """

    labelled: LabelledFrames
    rounds: tuple[int, ...]
    predictions: tuple[Predictions, ...]
    errors: tuple[StructureErrors, ...]
    structure: np.ndarray

    @property
    def title(self) -> str:
        """``test set`` or ``validation set``, and how much of it."""
        name = "test set" if self.labelled.role == "test" else "validation set"
        if len(self.labelled) == self.labelled.n_all:
            return name
        return f"{name} ({len(self.labelled):,} of its {self.labelled.n_all:,} structures)"

    @property
    def extremes(self) -> tuple[int, ...]:
        """Places in ``rounds`` of the first and the last, or of the only one."""
        return (0,) if len(self.rounds) == 1 else (0, len(self.rounds) - 1)


def score_held_out(
    saved: SavedCampaign, context: CampaignContext, role: str, *, seed: int
) -> ScoredSet | None:
    """Take what the models of some rounds predicted for the validation or test set.

    Returns:
        The predictions; None if there is no such set, or nothing was predicted.

    Raises:
        LabelError: A label cannot be used.
        DamagedStateError: A file of predictions is damaged.
    """
    found = {
        n_round: each
        for n_round in spread_evenly(saved.n_finished, MOST_ROUNDS)
        if (each := read_predictions(saved.state.round_folder(n_round) / PREDICTIONS).get(role))
    }
    if not found:
        return None
    places = next(iter(found.values())).places
    labelled = held_out_set(saved.state, context, role, places, seed=seed)
    if labelled is None:
        return None
    shown = np.array([frame.index for frame in labelled.frames], dtype=np.int64)
    taken = {n_round: each.take(shown) for n_round, each in found.items()}
    known = {n_round: each for n_round, each in taken.items() if each is not None}
    errors = tuple(measure_errors(labelled, each) for each in known.values())
    nowhere = np.full(len(labelled), -1, dtype=np.int32)
    return ScoredSet(labelled, tuple(known), tuple(known.values()), errors, nowhere)
