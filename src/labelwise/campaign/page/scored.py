"""The test set as the models of several rounds see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelwise.campaign.bench import Bench
from labelwise.campaign.page.labelled_sets import (
    LabelledFrames,
    Predictions,
    StructureErrors,
    held_out_set,
    measure_errors,
)
from labelwise.campaign.page.predicting import Predictor
from labelwise.campaign.page.saved import SavedCampaign
from labelwise.campaign.page.wording import spread_evenly

#: Rounds whose predictions are shown: first, last and some between them.
MOST_ROUNDS = 12


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
    saved: SavedCampaign, bench: Bench, predictor: Predictor, role: str, *, seed: int
) -> ScoredSet | None:
    """Let the models of some rounds predict the validation or test set.

    Args:
        saved: What the campaign's files say.
        bench: Its given structures.
        predictor: Its models.
        role: ``valid`` or ``test``.
        seed: Of the sample of a large set.

    Returns:
        The predictions; None if there is no such set, or no model.

    Raises:
        LabelError: A label cannot be used.
    """
    labelled = held_out_set(saved.state, bench, role, seed=seed)
    if labelled is None:
        return None
    rounds, predictions = [], []
    for n_round in spread_evenly(saved.n_finished, MOST_ROUNDS):
        found = predictor.predict(n_round, labelled)
        if found is not None:
            rounds.append(n_round)
            predictions.append(found)
    if not rounds:
        return None
    errors = tuple(measure_errors(labelled, each) for each in predictions)
    nowhere = np.full(len(labelled), -1, dtype=np.int32)
    return ScoredSet(labelled, tuple(rounds), tuple(predictions), errors, nowhere)
