"""The stage ``measure``: errors of the round's model, and predictions for the campaign's page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from jaxtyping import Float64

from labelwise.campaign.atomic_io import read_json, write_json
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.predictions import (
    CHOSEN,
    PREDICTIONS,
    Predictions,
    sample_predictions,
    write_predictions,
)
from labelwise.campaign.rounds import NOTABLE_ERROR, RETAINED, SPLITS, UNDETERMINED
from labelwise.campaign.state import FINETUNE, MEASURE, CampaignState
from labelwise.finetuning.evaluation import Evaluation, evaluate
from labelwise.finetuning.heads import on_replay_head
from labelwise.potentials import Potential
from labelwise.potentials.torch_potential import TorchPotential
from labelwise.structures import Frame
from labelwise.structures.atom_energies import count_elements, in_row_space
from labelwise.structures.labels import get_energy
from labelwise.structures.split_names import get_split

_log = logging.getLogger(__name__)

#: Reference energies that differ by more from those of the pretrained model were fitted, eV.
_NOTABLE_SHIFT = 0.1
_FITTED = ("auto", "refit", "labelled")


def run_measure(state: CampaignState, context: CampaignContext) -> None:
    """Measure the round's model on the validation and the test set.

    A resumed run reads the model from its file, which gives the same numbers. With
    ``data.test.split_key`` the errors of each split of the test set are recorded, too, and with
    ``data.retain`` those on what the pretrained model knew, beside them.
    """
    potential = context.model_of(state, state.n_round)
    config = state.config
    record: dict[str, Any] = {"round": state.n_round, "weights": potential.content_hash}
    record["errors"] = {}
    predicted: dict[str, Predictions] = {}
    for role in ("valid", "test"):
        frames = context.held_out_frames(state, role)
        if not frames:
            continue
        key = config.data.test.split_key if role == "test" else None
        splits = None if key is None else [get_split(f.atoms, str(f.source), key) for f in frames]
        found = _evaluate(
            state, potential, frames, splits, fixed_forces=config.measure.fixed_forces
        )
        predicted[role] = sample_predictions(found.energies, found.forces, seed=config.seed)
        n_undetermined = count_undetermined(state, context, frames, found.energies)
        if n_undetermined:
            record.setdefault(UNDETERMINED, {})[role] = n_undetermined
        record["errors"][role] = found.errors.as_record()
        if role == "test":  # of the validation set the fit tells
            for message in found.messages:
                _log.info("round %d: test: %s", state.n_round, message)
        if found.split_errors:
            record[SPLITS] = {name: table.as_record() for name, table in found.split_errors.items()}
    known = context.pretraining_set(state, "retain")
    if known is not None:
        view = on_replay_head(potential, config.finetune.recipe())
        errors = known.errors(view, fixed_forces=config.measure.fixed_forces)
        record[SPLITS] = {**record.get(SPLITS, {}), RETAINED: errors.as_record()}
    predicted |= _predict_batch(state, context, state.n_round)
    write_predictions(state.folder / PREDICTIONS, predicted)
    write_json(state.folder / MEASURE, record)


def predict_again(state: CampaignState, context: CampaignContext, n_round: int) -> None:
    """Let the model of a finished round predict once more what its page shows.

    Rounds of earlier versions kept no predictions.
    """
    potential = context.model_of(state, n_round)
    held = {role: context.held_out_frames(state, role) for role in ("valid", "test")}
    predicted = {
        role: _predict(state, potential, frames) for role, frames in held.items() if frames
    }
    predicted |= _predict_batch(state, context, n_round)
    write_predictions(state.round_folder(n_round) / PREDICTIONS, predicted)


def _predict_batch(
    state: CampaignState, context: CampaignContext, n_round: int
) -> dict[str, Predictions]:
    """Let the model of the round before predict what a round added to the training set."""
    keys = state.keys_of_round(n_round, "train")
    if n_round == 0 or not keys:
        return {}
    before = context.model_of(state, n_round - 1)
    return {CHOSEN: _predict(state, before, state.labelled_frames(keys))}


def _predict(state: CampaignState, potential: Potential, frames: list[Frame]) -> Predictions:
    found = _evaluate(state, potential, frames)
    return sample_predictions(found.energies, found.forces, seed=state.config.seed)


def _evaluate(
    state: CampaignState,
    potential: Potential,
    frames: list[Frame],
    splits: list[str] | None = None,
    *,
    fixed_forces: str = "count",
) -> Evaluation:
    config = state.config
    return evaluate(
        potential,
        [frame.atoms for frame in frames],
        energy_key=config.data.energy_key,
        forces_key=config.data.forces_key,
        stress_key=config.data.stress_key,
        fixed_forces=fixed_forces,
        splits=splits,
        sources=[frame.source for frame in frames],
        batch_atoms=config.selection.batch_atoms,
    )


def count_undetermined(
    state: CampaignState,
    context: CampaignContext,
    frames: Sequence[Frame],
    energies: Float64[np.ndarray, " n"],
) -> int:
    """Count the structures whose energies the labelled ones do not determine, and are far off.

    Where reference energies are fitted to labels of another level of theory, the energy of a
    composition that is no combination of the labelled ones may be off by any constant.

    Returns:
        0 if reference energies were kept, or those of isolated atoms are known.
    """
    mode = state.config.finetune.reference_energies
    if mode not in _FITTED or context.given.isolated_atoms or not _is_fitted(state, context):
        return 0
    known = context.frames_with_energies(state)
    if mode == "labelled":
        known += context.held_out_frames(state, "valid")
    numbers = [frame.atoms.numbers for frame in (*known, *frames)]
    counts = count_elements(numbers, np.unique(np.concatenate(numbers)).tolist())
    is_reached = in_row_space(counts[: len(known)], counts[len(known) :])
    key = state.config.data.energy_key
    labels = [get_energy(frame.atoms, str(frame.source), key) for frame in frames]
    is_far = np.abs(energies - np.array(labels)) > NOTABLE_ERROR
    return int((is_far & ~is_reached).sum())


def _is_fitted(state: CampaignState, context: CampaignContext) -> bool:
    """Return whether the round's reference energies are others than the pretrained model's."""
    start = context.pretrained(state)
    if not isinstance(start, TorchPotential):
        return False
    known = dict(zip(start.elements, start.reference_energies.tolist(), strict=True))
    fitted = read_json(state.folder / FINETUNE)["reference_energies"]
    return any(
        abs(energy - known[atomic_numbers[symbol]]) > _NOTABLE_SHIFT
        for symbol, energy in fitted.items()
    )
