"""Predictions of the rounds' models, made once and kept."""

from __future__ import annotations

import numpy as np

from labelwise.campaign.bench import Bench
from labelwise.campaign.page.kept import KeptArrays, digest
from labelwise.campaign.page.labelled_sets import LabelledFrames, Predictions
from labelwise.campaign.state import MODEL, CampaignState
from labelwise.errors import LabelwiseError
from labelwise.finetuning.evaluation import evaluate


class Predictor:
    """Asks the models of finished rounds, or what is kept of their answers.

    Args:
        state: The campaign.
        bench: Loads its models, or has their predictions from measuring them.
        kept: Where predictions are kept.

    Attributes:
        refusals: Why a round has no predictions, one line each.
    """

    def __init__(self, state: CampaignState, bench: Bench, kept: KeptArrays) -> None:
        self._state, self._bench, self._kept = state, bench, kept
        self.refusals: list[str] = []

    def predict(self, n_round: int, labelled: LabelledFrames) -> Predictions | None:
        """Return what the model of a finished round predicts.

        Args:
            n_round: The round.
            labelled: n structures.

        Returns:
            The predictions; None if the model cannot be had, with a line in ``refusals``.
        """
        record = self._state.rounds[n_round]
        weights = record.get("weights", "")  # the first versions did not write it down
        made_of = digest(
            "predictions", weights or record["files"].get(MODEL, ""), labelled.contents
        )
        name = f"round_{n_round:03d}_{labelled.role}"
        found = self._kept.load(name, made_of)
        cuts = np.cumsum(labelled.atom_counts)[:-1]
        if found is None:
            try:
                found = self._compute(n_round, weights, labelled)
            except (LabelwiseError, OSError) as error:
                self._refuse(f"no predictions of the model of round {n_round}: {error}")
                return None
            if found is None:
                return None
            self._kept.save(name, made_of, found)
        forces = tuple(np.split(found["forces"].astype(np.float64), cuts))
        return Predictions(found["energies"].astype(np.float64), forces)

    def _compute(
        self, n_round: int, weights: str, labelled: LabelledFrames
    ) -> dict[str, np.ndarray] | None:
        data, selection = self._state.config.data, self._state.config.selection
        measured = self._bench.measured.get((n_round, labelled.role))
        if measured is not None:
            places = [frame.index for frame in labelled.frames]
            forces = np.concatenate([measured.forces[i] for i in places])
            return {"energies": measured.energies[places], "forces": forces}
        potential = self._bench.model_of(self._state, n_round)
        if weights and potential.content_hash != weights:
            self._refuse(f"the model of round {n_round} is not the one that was measured")
            return None
        found = evaluate(
            potential,
            [frame.atoms for frame in labelled.frames],
            energy_key=data.energy_key,
            forces_key=data.forces_key,
            batch_atoms=selection.batch_atoms,
        )
        return {"energies": found.energies, "forces": np.concatenate(found.forces)}

    def _refuse(self, line: str) -> None:
        if line not in self.refusals:
            self.refusals.append(line)
