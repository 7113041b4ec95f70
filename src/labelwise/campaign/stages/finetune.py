"""The stages ``finetune`` and ``measure``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ase import Atoms

from labelwise.campaign.atomic_io import write_json
from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.errors import CampaignError
from labelwise.campaign.predictions import (
    CHOSEN,
    PREDICTIONS,
    Predictions,
    sample_predictions,
    write_predictions,
)
from labelwise.campaign.seeds import derive_seed
from labelwise.campaign.shared_cache import describe_fit
from labelwise.campaign.state import (
    FINETUNE,
    MEASURE,
    MODEL,
    SPLITS,
    UNDETERMINED,
    CampaignState,
)
from labelwise.campaign.undetermined import count_undetermined
from labelwise.finetuning.committee import draw_bootstrap, member_seeds
from labelwise.finetuning.evaluation import Evaluation, evaluate
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.loop import EpochRecord
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import FineTuned, finetune
from labelwise.finetuning.training_sets import describe_isolated
from labelwise.potentials import Potential
from labelwise.runtime.files import sync_folder
from labelwise.structures import Frame, Source
from labelwise.structures.split_names import get_split

_log = logging.getLogger(__name__)

#: What an epoch's record keeps; its seconds would differ from run to run.
_HISTORY_KEYS = ("epoch", "updates", "learning_rate", "train_loss", "valid_loss", "valid")


def member_files(config: CampaignConfig) -> list[str]:
    """Return the files of the committee's members in a round's folder, (members,).

    A ``shuffle`` committee counts the round's own model as its first member: it is made in
    the same way. The others are made in ways of their own, and the model is not of them.

    Args:
        config: The configuration.
    """
    selection = config.selection
    if not selection.needs_committee:
        return []
    others = [f"member_{number}.pt" for number in range(selection.members)]
    return [MODEL, *others[1:]] if selection.diversity == "shuffle" else others


def run_finetune(state: CampaignState, context: CampaignContext) -> None:
    """Fine-tune on everything labelled so far, and the committee's members if there are any.

    Every member is a file of its own, so that a run that was killed goes on behind the last
    finished one. The round's own model comes last, together with its history.

    Args:
        state: A campaign whose next stage is ``finetune``.
        context: Model and structures.

    Raises:
        CampaignError: There is nothing to train on.
        LabelError: A label cannot be used; names file and frame.
        WriteError: The disk is full.
    """
    train = context.train_frames(state)
    if not train:
        raise CampaignError("there is nothing to train on: no calculation has succeeded yet")
    config = state.config
    seed = derive_seed(config.seed, state.n_round, "finetune")
    folder = state.folder
    _finetune_members(state, context, train, seed)
    record = _make_model(state, context, train, folder / MODEL, seed=seed, label="fine-tune")
    record["messages"] = [*_describe_lone(context), *record["messages"]]
    sync_folder(folder)
    write_json(folder / FINETUNE, record)
    for message in record["messages"]:
        _log.info("round %d: %s", state.n_round, message)


def run_measure(state: CampaignState, context: CampaignContext) -> None:
    """Measure the round's model on the validation and the test set.

    A resumed run reads the model from its file, which gives the same numbers. With
    ``data.test.split_key`` the errors of each split of the test set are recorded, too.

    Args:
        state: A campaign whose next stage is ``measure``.
        context: Model and structures.

    Raises:
        LabelError: A label cannot be used; names file and frame.
        WriteError: The disk is full.
    """
    potential = context.model_of(state, state.n_round)
    data = state.config.data
    record: dict[str, Any] = {"round": state.n_round, "weights": potential.content_hash}
    record["errors"] = {}
    predicted: dict[str, Predictions] = {}
    for role in ("valid", "test"):
        frames = context.held_out_frames(state, role)
        if not frames:
            continue
        key = data.test.split_key if role == "test" else None
        splits = None if key is None else [get_split(f.atoms, str(f.source), key) for f in frames]
        found = _evaluate(
            state, potential, frames, splits, fixed_forces=state.config.measure.fixed_forces
        )
        predicted[role] = sample_predictions(found.energies, found.forces, seed=state.config.seed)
        n_undetermined = count_undetermined(state, context, frames, found.energies)
        if n_undetermined:
            record.setdefault(UNDETERMINED, {})[role] = n_undetermined
        record["errors"][role] = asdict(found.errors)
        if role == "test":  # of the validation set the fit tells
            for message in found.messages:
                _log.info("round %d: test: %s", state.n_round, message)
        if found.split_errors:
            record[SPLITS] = {name: asdict(table) for name, table in found.split_errors.items()}
    predicted |= _predict_batch(state, context, state.n_round)
    write_predictions(state.folder / PREDICTIONS, predicted)
    write_json(state.folder / MEASURE, record)


def predict_again(state: CampaignState, context: CampaignContext, n_round: int) -> None:
    """Let the model of a finished round predict once more what its page shows.

    Rounds of earlier versions kept no predictions.

    Args:
        state: The campaign.
        context: Model and structures.
        n_round: The round.

    Raises:
        LabelwiseError: The model is gone or damaged, or the file cannot be written.
    """
    predicted: dict[str, Predictions] = {}
    potential = context.model_of(state, n_round)
    for role in ("valid", "test"):
        frames = context.held_out_frames(state, role)
        if frames:
            found = _evaluate(state, potential, frames)
            predicted[role] = sample_predictions(
                found.energies, found.forces, seed=state.config.seed
            )
    predicted |= _predict_batch(state, context, n_round)
    write_predictions(state.round_folder(n_round) / PREDICTIONS, predicted)


def _predict_batch(
    state: CampaignState, context: CampaignContext, n_round: int
) -> dict[str, Predictions]:
    """Let the model of the round before predict what a round added to the training set."""
    keys = state.keys_of_round(n_round, "train")
    if n_round == 0 or not keys:
        return {}
    frames = [
        Frame(state.labelled_atoms(key), Source(*state.labels[key]["source"]), place)
        for place, key in enumerate(keys)
    ]
    found = _evaluate(state, context.model_of(state, n_round - 1), frames)
    return {CHOSEN: sample_predictions(found.energies, found.forces, seed=state.config.seed)}


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
        _structures(frames),
        energy_key=config.data.energy_key,
        forces_key=config.data.forces_key,
        fixed_forces=fixed_forces,
        splits=splits,
        sources=[frame.source for frame in frames],
        batch_atoms=config.selection.batch_atoms,
    )


def _finetune_members(
    state: CampaignState, context: CampaignContext, train: list[Frame], seed: int
) -> None:
    selection = state.config.selection
    seeds = member_seeds(seed, selection.members)
    for number, file in enumerate(member_files(state.config)):
        path = state.folder / file
        if file == MODEL or path.exists():
            continue
        frames = train
        if selection.diversity == "bootstrap":
            frames = [train[i] for i in draw_bootstrap(len(train), seed=seeds[number])]
        _make_model(
            state,
            context,
            frames,
            path,
            seed=seeds[number],
            label=f"member {number + 1} of {selection.members}",
            from_scratch=selection.diversity == "scratch",
        )


def _make_model(
    state: CampaignState,
    context: CampaignContext,
    train: list[Frame],
    path: Path,
    *,
    seed: int,
    label: str,
    from_scratch: bool = False,
) -> dict[str, Any]:
    """Fine-tune and write the model; return the record of it.

    Campaigns that differ in their rule alone begin with the same fits in round 0.
    """
    config = state.config
    recipe = config.finetune.recipe()
    if from_scratch:
        recipe = replace(recipe, start="scratch")
    start = context.current(state) if recipe.start == "last" else context.pretrained(state)
    valid = context.held_out_frames(state, "valid")
    key = None
    if state.n_round == 0 and context.shared.folder is not None:
        key = describe_fit(
            start,
            train,
            valid,
            recipe,
            seed=seed,
            isolated_atoms=context.given.isolated_atoms,
            label_keys=(config.data.energy_key, config.data.forces_key),
            fixed_forces=config.measure.fixed_forces,
        )
        known = context.shared.find_fit(key, path)
        if known is not None:
            return known
    fitted = _fit(state, context, start, train, valid, recipe, seed=seed, label=label)
    save_potential(fitted.potential, path)
    context.keep_model(path, fitted.potential)
    record = _describe(fitted, len(train), seed)
    if key is not None:
        context.shared.keep_fit(key, fitted.potential, record)
    return record


def _describe_lone(context: CampaignContext) -> list[str]:
    """Say which isolated atoms were among the given structures."""
    lone = context.given.lone
    if not lone:
        return []
    numbers = sorted({int(frame.atoms.numbers[0]) for frame in lone})
    return [describe_isolated(numbers, len(lone), str(lone[0].source))]


def _fit(
    state: CampaignState,
    context: CampaignContext,
    start: Potential,
    train: list[Frame],
    valid: list[Frame],
    recipe: Recipe,
    *,
    seed: int,
    label: str,
) -> FineTuned:
    config = state.config
    return finetune(
        start,
        _structures(train),
        _structures(valid),
        recipe,
        seed=seed,
        isolated_atoms=context.given.isolated_atoms,
        energy_key=config.data.energy_key,
        forces_key=config.data.forces_key,
        train_sources=[frame.source for frame in train],
        valid_sources=[frame.source for frame in valid],
        fixed_forces=config.measure.fixed_forces,
        progress=_reporter(context, label),
    )


def _structures(frames: list[Frame]) -> list[Atoms]:
    return [frame.atoms for frame in frames]


def _reporter(context: CampaignContext, label: str) -> Callable[[EpochRecord], None]:
    def report(record: EpochRecord) -> None:
        context.progress(label, record.updates, None)

    return report


def _describe(fitted: FineTuned, n_train: int, seed: int) -> dict[str, Any]:
    history = [asdict(record) for record in fitted.history]
    return {
        "n_train": n_train,
        "seed": seed,
        "weights": fitted.potential.content_hash,
        "best_epoch": fitted.best_epoch,
        "n_updates": fitted.n_updates,
        "reference_energies": fitted.reference_energies,
        "messages": list(fitted.messages),
        "notes": list(fitted.notes),
        "history": [{key: record[key] for key in _HISTORY_KEYS} for record in history],
    }
