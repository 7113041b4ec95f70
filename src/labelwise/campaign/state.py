"""What is on disk: the whole state of a campaign, and how it is read.

::

    my-campaign/
      campaign.yaml         what the user wants
      inputs.json           the settings and file contents that the campaign was begun with
      split.json            which training structures are held out
      inventory.json        what the pool holds
      labels.jsonl          every finished calculation: a label or the reason why not; it also
                            tells how many failed in a row
      rounds.jsonl          one line for each finished round: errors, times, content hashes
      journal.jsonl         times and costs as they happened; nothing is decided by it but
                            the end by wall time
      manifest.json         content hashes of all files of finished rounds
      round_003/
        picks.json          stage select: candidates in order of choice
        batch.json          stage label: which of them became the batch
        batch.extxyz        the same, labelled, for people and other programs
        model.pt            stage finetune: weights
        finetune.json       its history
        measure.json        stage measure: errors, those of each split among them

A stage is done when its file is there, and files are there whole or not at all. A round is
done when its line is in ``rounds.jsonl``. So any moment at which a process is killed is one
between two stages, or inside one that is done again from its beginning with the labels that
are in ``labels.jsonl`` already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.campaign.atomic_io import read_json, read_log
from labelwise.campaign.config import CampaignConfig, read_config
from labelwise.campaign.errors import DamagedStateError
from labelwise.campaign.inputs import MODEL_ROLE, name_source
from labelwise.campaign.labelling.encoding import decode_structure
from labelwise.campaign.rounds import RoundRecord
from labelwise.errors import ReadError
from labelwise.potentials.spec import find_model, split_family
from labelwise.runtime.files import hash_file
from labelwise.structures import Frame, Source
from labelwise.structures.labels import set_stress
from labelwise.structures.levels import LEVEL_KEY

INPUTS = "inputs.json"
SPLIT = "split.json"
INVENTORY = "inventory.json"
LABELS = "labels.jsonl"
ROUNDS = "rounds.jsonl"
JOURNAL = "journal.jsonl"
MANIFEST = "manifest.json"

PICKS = "picks.json"
BATCH = "batch.json"
BATCH_STRUCTURES = "batch.extxyz"
MODEL = "model.pt"
FINETUNE = "finetune.json"
MEASURE = "measure.json"

#: Keys of ``picks.json``: of a committee, and what a representation remarked.
RANK_CORRELATION = "rank_correlation"
REMARKS = "remarks"

#: Role of a structure on which round 0 tries the calculator.
TRIAL = "trial"

#: The stages of a round and the file that says that it is done.
STAGES = {"select": PICKS, "label": BATCH, "finetune": FINETUNE, "measure": MEASURE}


@dataclass(frozen=True)
class CampaignState:
    """A campaign as its directory tells it; nothing is kept beside it.

    Attributes:
        directory: The campaign.
        config: ``campaign.yaml``.
        labels: Content hash to the line of ``labels.jsonl`` that labels it.
        failures: Content hash to the line that says why there is no label.
        rounds: The finished rounds, round 0 first.
        trials: Content hash to the line of a label that was made to try the calculator. The
            structure can still be chosen, and has its label then.
        n_failed_in_a_row: Failures since the last label, pardon or accepted change, over all
            rounds and runs.
    """

    directory: Path
    config: CampaignConfig
    labels: Mapping[str, dict[str, Any]]
    failures: Mapping[str, dict[str, Any]]
    rounds: tuple[RoundRecord, ...]
    trials: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    n_failed_in_a_row: int = 0

    @property
    def n_round(self) -> int:
        """The round that is under way or comes next, from 0."""
        return len(self.rounds)

    @property
    def folder(self) -> Path:
        """The folder of that round."""
        return self.round_folder(self.n_round)

    @property
    def stage(self) -> str:
        """The stage that comes next: one of ``STAGES``, or ``commit``."""
        done = (name for name, file in STAGES.items() if not (self.folder / file).exists())
        return next(done, "commit")

    @property
    def has_begun(self) -> bool:
        """Whether anything was chosen or labelled yet."""
        return bool(self.rounds or self.labels or self.failures) or (self.folder / PICKS).exists()

    def round_folder(self, n_round: int) -> Path:
        """Return the folder of a round."""
        return round_folder(self.directory, n_round)

    def batch_keys(self, role: str) -> list[str]:
        """Return the content hashes of all batches so far, in order of round and rank."""
        every = range(self.n_round + 1)
        return [key for n_round in every for key in self.keys_of_round(n_round, role)]

    def keys_of_round(self, n_round: int, role: str) -> list[str]:
        """Return the content hashes of a round's batch by rank; nothing if it has none yet.

        Raises:
            DamagedStateError: A batch file cannot be read.
        """
        path = self.round_folder(n_round) / BATCH
        if n_round >= self.n_round and not path.exists():
            return []
        keys: list[str] = read_json(path)["batch"].get(role, [])
        return keys

    def has_label(self, role: str, key: str) -> bool:
        """Return whether a structure that was chosen for a role has its label."""
        return key in (self.trials if role == TRIAL else self.labels)

    def labelled_frames(self, keys: Sequence[str]) -> list[Frame]:
        """Return labelled structures of these content hashes, numbered from 0.

        Raises:
            DamagedStateError: A label is missing.
        """
        return [
            Frame(self.labelled_atoms(key), Source(*self.labels[key]["source"]), place)
            for place, key in enumerate(keys)
        ]

    def labelled_atoms(self, key: str) -> Atoms:
        """Return the labelled structure of a content hash, its labels under the configured keys.

        Raises:
            DamagedStateError: There is no such label.
        """
        if key not in self.labels:
            raise DamagedStateError(f"{self.directory / LABELS} has lost the label of {key}")
        record = self.labels[key]
        atoms = decode_structure(record["structure"])
        atoms.info[self.config.data.energy_key] = record["energy"]
        forces = np.array(record["forces"], dtype=np.float64).reshape(-1, 3)
        atoms.set_array(self.config.data.forces_key, forces)
        stress_key = self.config.data.stress_key
        if "stress" in record and stress_key is not None:
            set_stress(atoms, np.array(record["stress"], dtype=np.float64), stress_key)
        if "level" in record:
            atoms.info[LEVEL_KEY] = record["level"]
        return atoms

    def recorded_frames(self) -> Iterator[Frame]:
        """Yield every structure of the pool that was labelled or failed, as it was recorded."""
        for number, record in enumerate((*self.labels.values(), *self.failures.values())):
            yield Frame(decode_structure(record["structure"]), Source(*record["source"]), number)

    def name_frame(self, frame: Frame) -> Frame:
        """Return a frame with its file as the campaign's own records name it."""
        return Frame(frame.atoms, name_source(self.directory, frame.source), frame.index)


def round_folder(directory: Path, n_round: int) -> Path:
    """Return the folder of a round of a campaign."""
    return directory / f"round_{n_round:03d}"


def read_state(directory: Path, *, keys_alone: bool = False) -> CampaignState:
    """Read a campaign; nothing is written.

    Args:
        directory: The campaign.
        keys_alone: Whether to leave its rule unchecked, which loads torch; see ``read_config``.

    Raises:
        ConfigError: ``campaign.yaml`` is missing or wrong.
        DamagedStateError: A file is not what the campaign wrote.
    """
    config = read_config(directory, keys_alone=keys_alone)
    found = _read_labels(directory)
    rounds = tuple(RoundRecord.from_line(line) for line in read_log(directory / ROUNDS))
    if [record.n_round for record in rounds] != list(range(len(rounds))):
        raise DamagedStateError(f"{directory / ROUNDS}: a round is missing or there twice")
    return CampaignState(directory, config, rounds=rounds, **found)


def _read_labels(directory: Path) -> dict[str, Any]:
    """Return what ``labels.jsonl`` says: labels, trials, failures, and those in a row."""
    labels: dict[str, dict[str, Any]] = {}
    trials: dict[str, dict[str, Any]] = {}
    failures: dict[str, dict[str, Any]] = {}
    n_in_a_row = 0
    for record in read_log(directory / LABELS):
        n_in_a_row = n_in_a_row + 1 if "failed" in record else 0
        if "key" not in record:  # other inputs were accepted: other calculations, perhaps
            trials.clear()
            continue
        key = record["key"]
        if "failed" in record:
            failures.setdefault(key, record)
            continue
        failures.pop(key, None)  # a label, or a pardon: the structure may be chosen again
        if "energy" in record:
            trials.pop(key, None)
            (trials if record.get("role") == TRIAL else labels)[key] = record
    return {
        "labels": labels,
        "trials": trials,
        "failures": failures,
        "n_failed_in_a_row": n_in_a_row,
    }


def count_left(state: CampaignState, inventory: Mapping[str, Any]) -> int:
    """Return how many structures of the pool can still be chosen; 1 where nobody has counted."""
    if not {"n_usable", "n_used"} <= inventory.keys():
        return 1
    n_used = len(state.labels) + len(state.failures) - int(inventory["n_used"])
    return int(inventory["n_usable"]) - n_used


def read_messages(directory: Path, n_rounds: int) -> dict[int, list[str]]:
    """Return what the fits of the first rounds had to say; rounds with nothing are left out.

    Raises:
        DamagedStateError: The record of a fit cannot be read.
    """
    paths = {n: round_folder(directory, n) / FINETUNE for n in range(n_rounds)}
    found = {n: read_json(path).get("messages") for n, path in paths.items() if path.exists()}
    return {n: [str(each) for each in messages] for n, messages in found.items() if messages}


def find_damage(state: CampaignState, *, spare_models: bool = True) -> tuple[str, ...]:
    """Return what differs from what the campaign wrote, one line for each file.

    Args:
        state: The campaign.
        spare_models: For those who read a campaign that they do not go on with: a model that was
            deleted to save space is no damage, as long as nobody asks for it.
    """
    found = []
    for record in state.rounds:
        for name, digest in record.files.items():
            path = state.round_folder(record.n_round) / name
            is_spared = spare_models and path.suffix == ".pt" and not path.exists()
            if not is_spared and _hash_or_nothing(path) != digest:
                found.append(f"{path} is not what the campaign wrote")
    part = state.rounds[-1].labels if state.rounds else {"bytes": 0}
    path = state.directory / LABELS
    if part["bytes"] and _hash_or_nothing(path, part["bytes"]) != part["sha256"]:
        found.append(f"{path} was changed in a part that belongs to finished rounds")
    return tuple(found)


def _hash_or_nothing(path: Path, n_bytes: int | None = None) -> str:
    """Return a file's hash; nothing if it cannot be read or is too short."""
    with suppress(ReadError):
        return hash_file(path, n_bytes=n_bytes)
    return ""


def verify_file(state: CampaignState, n_round: int, name: str) -> None:
    """See that a file of a finished round is what it was.

    Raises:
        DamagedStateError: It is missing, has another content, or is none of the round's.
    """
    path = state.round_folder(n_round) / name
    if _hash_or_nothing(path) != state.rounds[n_round].files.get(name):
        raise DamagedStateError(
            f"{path} is not what the campaign wrote; put the file back, or begin a new campaign"
        )


def verify_model(state: CampaignState) -> None:
    """See, before it is loaded, that the pretrained model is that of the campaign's beginning.

    Nothing is known of a model that is loaded by its name, nor before the first run.

    Raises:
        DamagedStateError: The model's file is missing or has another content.
    """
    record = state.directory / INPUTS
    path = Path(split_family(find_model(state.directory, state.config.model.path))[1])
    if not (record.exists() and path.is_file()):
        return
    for name, known in read_json(record).get("files", {}).items():
        if name.startswith(MODEL_ROLE) and _hash_or_nothing(path) != known["sha256"]:
            raise DamagedStateError(
                f"{path} is not the model that {state.directory} was begun with; put the file "
                "back, or give the model with --model"
            )


def verify_files(state: CampaignState) -> None:
    """See that the files of finished rounds are what they were.

    Raises:
        DamagedStateError: A file is missing or has another content; the message names it.
    """
    damage = find_damage(state, spare_models=False)
    if damage:
        raise DamagedStateError(f"{damage[0]}; put the file back, or begin a new campaign")
