"""What the stages share: the model, the given structures, and somebody to talk to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labelwise.campaign.atomic_io import append_line, write_json
from labelwise.campaign.datasets import GivenSets, iter_pool, open_given_sets
from labelwise.campaign.inputs import locate, name_source
from labelwise.campaign.shared_cache import SharedCache
from labelwise.campaign.state import (
    INVENTORY,
    JOURNAL,
    MODEL,
    CampaignState,
    count_left,
    verify_file,
)
from labelwise.errors import ArgumentError
from labelwise.finetuning.heads import on_replay_head
from labelwise.finetuning.pretraining_set import PretrainingSet, prepare_pretraining_set
from labelwise.potentials import Potential, load_potential
from labelwise.potentials.spec import find_model
from labelwise.runtime.memory import peak_resident_bytes
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.selection.acquire import refuse_unusable
from labelwise.structures import DuplicateIndex, Frame, iter_frames
from labelwise.structures.labels import has_any
from labelwise.structures.screening import NON_FINITE

_CLEAR = Path("/proc/self/clear_refs")
_MAX_MODELS = 8


@dataclass
class CampaignContext:
    """What is kept in memory from stage to stage; all of it can be made from files again.

    Attributes:
        given: The labelled structures of the configuration's files.
        inventory: What ``take_inventory`` found, and under ``n_used`` how many structures
            the campaign had used when it was taken.
        progress: Called with stage, done, total.
        shared: What may be shared with other campaigns.
        wait: Whether to wait for labels that a queue makes.
    """

    given: GivenSets
    inventory: dict[str, Any]
    progress: ProgressCallback = ignore_progress
    shared: SharedCache = field(default_factory=SharedCache)
    wait: bool = True
    _models: dict[str, Potential] = field(default_factory=dict, repr=False)
    _target: list[Frame] | None = field(default=None, repr=False)
    _known: dict[str, PretrainingSet] = field(default_factory=dict, repr=False)

    def pretrained(self, state: CampaignState) -> Potential:
        """Load the model that the campaign begins with."""
        path = find_model(state.directory, state.config.model.path)
        return self.shared.load_pretrained(path, state.config.model)

    def current(self, state: CampaignState) -> Potential:
        """Load the model of the last finished round; before round 1, the pretrained one."""
        if state.n_round == 0:
            return self.pretrained(state)
        return self.model_of(state, state.n_round - 1)

    def model_of(self, state: CampaignState, n_round: int, file: str = MODEL) -> Potential:
        """Load a model of a round that has been fine-tuned."""
        path = str(state.round_folder(n_round) / file)
        if path not in self._models:
            if n_round < state.n_round:
                verify_file(state, n_round, file)
            self._hold(path, self._load(state, path))
        return self._models[path]

    def iter_pool(
        self, state: CampaignState, excluded: DuplicateIndex | None = None
    ) -> Iterator[Frame]:
        """Read the pool as a stream; see ``datasets.iter_pool``."""
        return iter_pool(state, excluded, read=self.shared.iter_frames)

    def n_left(self, state: CampaignState) -> int:
        """Count the structures of the pool that can still be chosen."""
        return count_left(state, self.inventory)

    def correct_count(self, state: CampaignState, n_too_many: int) -> None:
        """Take structures from the inventory that proved to have features that are not finite.

        The model is not run on the whole pool when the inventory is taken, so that they
        count as usable until a selection needs them.
        """
        screened = dict(self.inventory["screened"])
        screened[NON_FINITE] = screened.get(NON_FINITE, 0) + n_too_many
        n_usable = int(self.inventory["n_usable"]) - n_too_many
        self.inventory |= {"screened": screened, "n_usable": n_usable}
        write_json(state.directory / INVENTORY, self.inventory)

    def train_frames(self, state: CampaignState) -> list[Frame]:
        """Return all that is trained on: the given structures, then the batches in order."""
        return self.given.with_labels(state, "train")

    def frames_with_energies(self, state: CampaignState) -> list[Frame]:
        """Return those that are trained on and have energies; see ``data.partial_labels``."""
        key = state.config.data.energy_key
        return [frame for frame in self.train_frames(state) if has_any(frame.atoms, (key,))]

    def held_out_frames(self, state: CampaignState, role: str) -> list[Frame]:
        """Return the validation or test set."""
        return self.given.with_labels(state, role)

    def pretraining_set(self, state: CampaignState, role: str) -> PretrainingSet | None:
        """Return what is replayed or retained, prepared once; None if there is none.

        Args:
            state: The campaign.
            role: ``replay`` or ``retain``.
        """
        wanted, data = getattr(state.config.data, role), state.config.data
        if not wanted.files:
            return None
        if role not in self._known:
            specs = [locate(state.directory, spec) for spec in wanted.files]
            frames = list(iter_frames(specs))
            self._known[role] = prepare_pretraining_set(
                on_replay_head(self.pretrained(state), state.config.finetune.recipe()),
                [frame.atoms for frame in frames],
                labels=wanted.labels,
                role={"replay": "replayed", "retain": "retained"}[role],
                sources=[name_source(state.directory, frame.source) for frame in frames],
                energy_key=data.energy_key,
                forces_key=data.forces_key,
                stress_key=data.stress_key,
            )
        return self._known[role]

    def target_frames(self, state: CampaignState) -> list[Frame]:
        """Return the structures that matter, read once; empty if the configuration names none.

        Raises:
            ArgumentError: What it names holds none.
        """
        if self._target is None:
            specs = [locate(state.directory, spec) for spec in state.config.data.target]
            self._target = list(iter_frames(specs)) if specs else []
            if specs and not self._target:
                raise ArgumentError("data.target holds no structures")
        return self._target

    def prepare_known(self, state: CampaignState) -> None:
        """Read the target and what is replayed and retained: mistakes show before all is paid.

        Raises:
            ArgumentError: A structure is replayed or trained on, and retained.
            ScreeningError: The model cannot take a structure of the target.
        """
        target = self.target_frames(state)
        if target:
            settings = state.config.selection.settings(1, seed=0)
            screen = settings.make_recipe().make_screen(self.pretrained(state))
            refuse_unusable(filter(None, map(screen.check_content, target)))
        if not (state.config.data.replay.files or state.config.data.retain.files):
            return
        replay, retain = (self.pretraining_set(state, role) for role in ("replay", "retain"))
        if retain is not None:
            retain.require_unseen([frame.atoms for frame in self.train_frames(state)], replay)

    def used_index(self, state: CampaignState) -> DuplicateIndex:
        """Return all that may not be chosen: labelled, held out, failed."""
        index = DuplicateIndex()
        for frame in (*self.given.valid, *self.given.test):
            index.add(frame.atoms, 0)
        for frame in state.recorded_frames():
            index.add(frame.atoms, 0)
        return index

    def keep_model(self, path: Path, potential: Potential) -> None:
        """Keep a model that was just saved, so that it need not be read again."""
        self._hold(str(path), potential)

    def _hold(self, path: str, potential: Potential) -> None:
        """Keep the latest models: a round's members are asked for again in the next."""
        self._models.pop(path, None)
        self._models[path] = potential
        while len(self._models) > _MAX_MODELS:
            del self._models[next(iter(self._models))]

    def _load(self, state: CampaignState, path: str) -> Potential:
        model, head = state.config.model, state.config.model.head
        if state.config.finetune.replay_head is not None:  # a fit has one head more, perhaps
            head = self.pretrained(state).head
        return load_potential(path, device=model.device, dtype=model.dtype, head=head)


def open_context(
    state: CampaignState, progress: ProgressCallback = ignore_progress
) -> CampaignContext:
    """Read the given structures as a run of the campaign does, but write and load nothing."""
    return CampaignContext(open_given_sets(state), {}, progress)


@contextmanager
def timed(state: CampaignState, stage: str) -> Iterator[None]:
    """Write into the journal how long a stage took and how much memory it needed.

    A stage that is interrupted is written down as well, unless the process is killed.
    """
    _reset_peak()
    began = time.perf_counter()
    try:
        yield
    finally:
        record = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event": "stage",
            "round": state.n_round,
            "stage": stage,
            "seconds": round(time.perf_counter() - began, 3),
            "peak_mib": round(peak_resident_bytes() / 2**20),
        }
        # Times are for people: a disk that is full must not hide what went wrong.
        with suppress(OSError):
            append_line(state.directory / JOURNAL, record)


def _reset_peak() -> None:
    """Let the kernel forget the peak so far (Linux; elsewhere it is that of the process)."""
    with suppress(OSError):
        _CLEAR.write_text("5")
