"""A round's model and training set for other programs."""

from __future__ import annotations

from pathlib import Path

from labelwise.campaign.atomic_io import write_json
from labelwise.campaign.context import open_context
from labelwise.campaign.errors import CampaignError, DamagedStateError
from labelwise.campaign.rounds import SPLITS, UNDETERMINED
from labelwise.campaign.state import CampaignState, find_damage, read_messages
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.trainable import require_trainable
from labelwise.runtime.files import sync_folder
from labelwise.structures import write_structures

EXPORTED_MODEL = "potential"
EXPORTED_STRUCTURES = "training_set.extxyz"
EXPORTED_RECORD = "export.json"


def export_round(state: CampaignState, n_round: int, folder: Path) -> Path:
    """Write a round's model for other programs, and what it was trained on.

    Args:
        state: The campaign.
        n_round: The round.
        folder: Where ``potential`` in the family's format (``.model``, which mace-torch,
            LAMMPS and OpenMM take), ``training_set.extxyz`` and ``export.json`` go; made if
            missing.

    Returns:
        The folder.

    Raises:
        CampaignError: There is no such round.
        DamagedStateError: A file is not what the campaign wrote.
        WriteError: A file cannot be written.
    """
    if not 0 <= n_round < len(state.rounds):
        raise CampaignError(
            f"round {n_round} is not finished; finished are 0 to {len(state.rounds) - 1}"
        )
    damage = find_damage(state)
    if damage:
        raise DamagedStateError(f"{'; '.join(damage)}; put back what was there")
    record = state.rounds[n_round]
    context = open_context(state)
    messages = read_messages(state.directory, n_round + 1).get(n_round, [])
    frames = context.train_frames(state)[: record.n_train]
    folder.mkdir(parents=True, exist_ok=True)
    potential = require_trainable(context.model_of(state, n_round))
    save_potential(potential, folder / f"{EXPORTED_MODEL}{potential.file_suffixes[0]}")
    write_structures(folder / EXPORTED_STRUCTURES, [frame.atoms for frame in frames])
    sync_folder(folder)
    words = {
        "campaign": str(state.directory.absolute()),
        "round": n_round,
        "n_train": record.n_train,
        "errors": record.errors,
        **({SPLITS: record.split_errors} if record.split_errors else {}),
        **({UNDETERMINED: record.undetermined} if record.undetermined else {}),
        **({"messages": messages} if messages else {}),
        "units": "meV, meV/atom, meV/Å",
        "pretrained": state.config.model.path,
        "versions": record.versions,
    }
    write_json(folder / EXPORTED_RECORD, words)
    return folder
