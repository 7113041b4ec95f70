"""The stage ``finetune``."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from labelwise.campaign.atomic_io import write_json
from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.errors import CampaignError
from labelwise.campaign.seeds import derive_seed
from labelwise.campaign.shared_cache import describe_fit
from labelwise.campaign.state import FINETUNE, MODEL, CampaignState
from labelwise.finetuning.committee import draw_bootstrap, member_seeds
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.heads import check_replay_head, with_replay_head
from labelwise.finetuning.parametrisation import check_blocks
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import FineTuned, finetune
from labelwise.finetuning.training_sets import describe_isolated
from labelwise.runtime.files import sync_folder
from labelwise.structures import Frame

_log = logging.getLogger(__name__)

#: What an epoch's record keeps; its seconds would differ from run to run.
_HISTORY_KEYS = ("epoch", "updates", "learning_rate", "train_loss", "valid_loss", "valid")


def member_files(config: CampaignConfig) -> list[str]:
    """Return the files of the committee's members in a round's folder, (members,).

    A ``shuffle`` committee counts the round's own model as its first member: it is made in
    the same way. The others are made in ways of their own, and the model is not of them.
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


def check_recipe(state: CampaignState, context: CampaignContext) -> None:
    """See that the model has the blocks and heads that are to be trained, before any is labelled.

    Raises:
        ArgumentError: It has not, or nothing is replayed with a head of its own.
        PotentialError: It cannot have a head for what is replayed.
    """
    recipe = state.config.finetune.recipe()
    if not recipe.trains_everything:
        check_blocks(context.pretrained(state), recipe)
    if recipe.replay_head is not None:
        source = require_trainable(context.pretrained(state))
        check_replay_head(source, recipe, replays=bool(state.config.data.replay.files))
        with_replay_head(source, recipe)  # its family may have no heads


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
        recipe = replace(recipe, start="scratch", replay_head=None)
    # A committee's member of new weights has nothing to retain.
    replay = None if recipe.start == "scratch" else context.pretraining_set(state, "replay")
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
            stress_key=config.data.stress_key,
            fixed_forces=config.measure.fixed_forces,
            replay=replay,
        )
        known = context.shared.find_fit(key, path)
        if known is not None:
            return known
    fitted = finetune(
        start,
        [frame.atoms for frame in train],
        [frame.atoms for frame in valid],
        recipe,
        seed=seed,
        isolated_atoms=context.given.isolated_atoms,
        energy_key=config.data.energy_key,
        forces_key=config.data.forces_key,
        stress_key=config.data.stress_key,
        partial_labels=config.data.partial_labels,
        train_sources=[frame.source for frame in train],
        valid_sources=[frame.source for frame in valid],
        fixed_forces=config.measure.fixed_forces,
        replay=replay,
        progress=lambda epoch: context.progress(label, epoch.updates, None),
    )
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


def _describe(fitted: FineTuned, n_train: int, seed: int) -> dict[str, Any]:
    history = [
        asdict(record) | {"valid": None if record.valid is None else record.valid.as_record()}
        for record in fitted.history
    ]
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
