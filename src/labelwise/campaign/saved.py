"""A campaign as its files tell it: for the terminal, for JSON and for a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from labelwise.campaign.atomic_io import read_json, read_log
from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.errors import CampaignError
from labelwise.campaign.labelling.files import TO_LABEL
from labelwise.campaign.labelling.slurm.settings import SlurmSettings
from labelwise.campaign.labelling.slurm.status import QueueStatus, read_queue_status
from labelwise.campaign.lock import is_stale, read_holder
from labelwise.campaign.outcomes import Candidate, read_candidates
from labelwise.campaign.rounds import (
    Forecast,
    RoundRecord,
    explain_undetermined,
    forecast,
    get_curve,
    sum_hours,
    sum_stages,
)
from labelwise.campaign.state import (
    FINETUNE,
    INVENTORY,
    JOURNAL,
    CampaignState,
    count_left,
    find_damage,
)
from labelwise.campaign.stopping import find_reason_to_stop, remind_of_failures
from labelwise.finetuning.metrics import auc_of_curve
from labelwise.structures.extxyz import iter_frame_texts


@dataclass(frozen=True)
class Situation:
    """What a campaign does at present.

    Attributes:
        word: ``not begun``, ``running``, ``waiting for labels``, ``stopped``, ``between rounds``
            or ``interrupted``.
        detail: Why, or where.
    """

    word: str
    detail: str


@dataclass(frozen=True)
class SavedCampaign:
    """What the files of a campaign say.

    Attributes:
        state: The campaign.
        inventory: ``inventory.json``; empty before it was made.
        histories: ``finetune.json`` of each round that has it, by round.
        stages: Seconds by stage, by round, the unfinished round's among them.
        seconds: Wall time of each calculation, by content hash, the last one's.
        calculation_hours: Wall time of all calculations, hours.
        waiting_file: The file of structures that no label has come for; empty if none waits.
        n_waiting: How many these are.
        queue: The jobs that label, if the round under way has any.
        holder: Who runs it; empty if nobody does.
        is_running: Whether that process lives.
        stopped: Why it has just stopped, where that is known.
        damage: Files that are not what the campaign wrote, a line each.
    """

    state: CampaignState
    inventory: dict[str, Any]
    histories: dict[int, dict[str, Any]]
    stages: dict[int, dict[str, float]]
    seconds: dict[str, float]
    calculation_hours: float
    waiting_file: str
    n_waiting: int
    queue: QueueStatus | None
    holder: str
    is_running: bool
    stopped: str
    damage: tuple[str, ...]

    @property
    def config(self) -> CampaignConfig:
        """The campaign's configuration."""
        return self.state.config

    @property
    def rounds(self) -> tuple[RoundRecord, ...]:
        """The finished rounds, round 0 first."""
        return self.state.rounds

    @property
    def n_finished(self) -> int:
        """Rounds that are finished, round 0 among them."""
        return len(self.rounds)

    @property
    def scored_role(self) -> str:
        """The set whose errors are shown: ``test``, else ``valid``, else nothing."""
        found = {role for record in self.rounds for role in record.errors}
        return next((role for role in ("test", "valid") if role in found), "")

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """All that was chosen, in order."""
        return read_candidates(self.state)

    @property
    def next(self) -> str:
        """The stage that comes next, or would if it went on, such as ``round 3: label``."""
        return f"round {self.state.n_round}: {self.state.stage}"

    @property
    def failures(self) -> dict[str, int]:
        """Reason to structures that were set aside."""
        return dict(Counter(record["failed"] for record in self.state.failures.values()))

    @property
    def messages(self) -> dict[int, list[str]]:
        """Round to what its fit had to say; rounds with nothing are left out."""
        found = {n: content.get("messages") for n, content in self.histories.items()}
        return {n: [str(each) for each in said] for n, said in found.items() if said}

    @property
    def undetermined(self) -> str:
        """Of which rounds the energy errors are no result, and why; or nothing."""
        return explain_undetermined(self.rounds)

    @property
    def auc(self) -> dict[str, float]:
        """Error to the sum over rounds, meV, meV/atom and meV/Å; energies if they are a result."""
        energy_error = self.config.measure.energy_error
        shown = ("forces_rmse",) if self.undetermined else (energy_error, "forces_rmse")
        curves = {name: get_curve(self.rounds, name) for name in shown}
        return {
            name: auc_of_curve([value for _, value in curve])
            for name, curve in curves.items()
            if curve
        }

    @property
    def forecast(self) -> Forecast | None:
        """What one more batch would bring; None when that cannot be told."""
        return forecast(self.rounds, self.config.selection.batch_size)

    @property
    def hours(self) -> float:
        """Wall time of all stages of finished rounds, hours."""
        return sum_hours(self.rounds)

    @property
    def n_left(self) -> int:
        """Structures of the pool that can still be chosen; 1 where nobody has counted."""
        return count_left(self.state, self.inventory)

    @property
    def reason_to_stop(self) -> str | None:
        """Why it has come to its end, None if it has not."""
        return find_reason_to_stop(self.state, n_left=self.n_left)

    @property
    def finished(self) -> str:
        """Why it has come to its end and how to go on; empty if it has not."""
        state, reason = self.state, self.reason_to_stop
        if reason is None:
            return ""
        if self.n_left <= 0:
            how = remind_of_failures(state) if state.failures else "to go on, add to data.pool"
        else:
            more = f"labelwise campaign run {state.directory} --rounds {state.n_round}"
            has_other_limits = find_reason_to_stop(state, n_left=1, n_rounds=state.n_round)
            limits = "change stop in campaign.yaml" if has_other_limits is not None else ""
            how = f"to go on: {' and '.join(filter(None, (limits, more)))}"
        return f"{reason}; {how}"

    @property
    def situation(self) -> Situation:
        """What it does at present."""
        if self.stopped:
            return Situation("stopped", self.stopped)
        if self.is_running:
            return Situation("running", self.next)
        if self.waiting_file:
            return Situation("waiting for labels", f"{self.n_waiting} structures")
        if self.queue is not None and self.queue.n_open:
            return Situation("waiting for labels", f"{self.queue.n_open} structures in the queue")
        if not self.state.has_begun:
            return Situation("not begun", "")
        reason = self.reason_to_stop
        if reason is not None:
            return Situation("stopped", reason)
        is_between = self.state.stage == "select" and bool(self.rounds)
        return Situation("between rounds" if is_between else "interrupted", f"next: {self.next}")

    def as_dict(self) -> dict[str, Any]:
        """Return what ``campaign status --json`` prints."""
        names = ("failures", "n_waiting", "waiting_file", "holder")
        more = ("auc", "undetermined", "messages", "damage", "calculation_hours", "hours")
        return {
            "next": self.next,
            "finished": self.finished,
            "n_labels": len(self.state.labels),
            **{name: getattr(self, name) for name in names},
            "rounds": [record.as_line() for record in self.rounds],
            "energy_errors": self.config.measure.energy_errors,
            **{name: getattr(self, name) for name in more},
            "queue": None if self.queue is None else asdict(self.queue),
            "forecast": None if self.forecast is None else asdict(self.forecast),
        }


def read_saved(
    state: CampaignState, *, stopped: str = "", check: bool = True, ask: bool = False
) -> SavedCampaign:
    """Read what there is to tell of a campaign; nothing is written, and it may be running.

    Args:
        state: The campaign.
        stopped: Why it has just stopped, where that is known.
        check: Whether to look for files that are not what the campaign wrote; a run, which has
            done so at its start, need not.
        ask: Whether a queue may be asked how the jobs are.

    Raises:
        DamagedStateError: A file is not what the campaign wrote.
        ReadError: The file of structures that wait for labels cannot be read.
    """
    directory = state.directory
    events = read_log(directory / JOURNAL)
    done = [each for each in events if each.get("event") == "calculation"]
    waiting = state.folder / TO_LABEL
    is_waiting = state.stage == "label" and waiting.exists()
    paths = {n: state.round_folder(n) / FINETUNE for n in range(state.n_round + 1)}
    holder, is_running = _find_holder(directory)
    stages: dict[int, Mapping[str, Mapping[str, float]]] = {
        record.n_round: record.stages for record in state.rounds
    }
    unfinished = sum_stages(events, state.n_round)
    if unfinished:
        stages[state.n_round] = unfinished
    return SavedCampaign(
        state,
        read_json(directory / INVENTORY) if (directory / INVENTORY).exists() else {},
        {n: read_json(path) for n, path in paths.items() if path.exists()},
        {n: {name: each["seconds"] for name, each in found.items()} for n, found in stages.items()},
        {each["key"]: float(each["seconds"]) for each in done},
        sum(each["seconds"] for each in done) / 3600.0,
        str(waiting) if is_waiting else "",
        sum(1 for _ in iter_frame_texts(waiting)) if is_waiting else 0,
        _read_queue(state, ask=ask),
        holder,
        is_running,
        stopped,
        find_damage(state) if check else (),
    )


def find_best_round(rounds: Sequence[RoundRecord]) -> int:
    """Return the round of lowest force RMSE on the validation set.

    The test set chooses nothing, or its errors would look too small; without a
    validation set the last round is the best, having the most labels.

    Raises:
        CampaignError: No round is finished.
    """
    if not rounds:
        raise CampaignError("no round is finished: there is no model yet")
    if any("valid" not in record.errors for record in rounds):
        return len(rounds) - 1
    values = [record.errors["valid"]["forces_rmse"] for record in rounds]
    return values.index(min(values))


def _read_queue(state: CampaignState, *, ask: bool) -> QueueStatus | None:
    """Return how the jobs of the round under way are; None if it has none."""
    labeller = state.config.labeller
    if not isinstance(labeller, SlurmSettings) or state.stage != "label":
        return None
    return read_queue_status(state.folder, labeller, state.directory, ask=ask)


def _find_holder(directory: Path) -> tuple[str, bool]:
    """Return who has a campaign, and whether that process lives."""
    try:
        holder = read_holder(directory)
    except CampaignError as error:
        return str(error), False
    if holder is None:
        return "", False
    return (f"{holder} (dead)", False) if is_stale(holder) else (str(holder), True)
