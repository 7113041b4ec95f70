"""Where a campaign stands, and what it leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelwise.campaign.atomic_io import read_json, read_log, write_json
from labelwise.campaign.context import count_left, open_context
from labelwise.campaign.errors import CampaignError, DamagedStateError
from labelwise.campaign.labelling.files import TO_LABEL
from labelwise.campaign.lock import is_stale, read_holder
from labelwise.campaign.state import (
    INVENTORY,
    JOURNAL,
    SPLITS,
    UNDETERMINED,
    CampaignState,
    find_damage,
)
from labelwise.campaign.stopping import (
    Forecast,
    find_reason_to_stop,
    forecast,
    get_curve,
    remind_of_failures,
    sum_hours,
)
from labelwise.campaign.undetermined import explain_undetermined, read_messages
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.metrics import auc_of_curve
from labelwise.runtime.files import sync_folder
from labelwise.structures import write_structures
from labelwise.structures.extxyz import iter_frame_texts

EXPORTED_MODEL = "potential.model"
EXPORTED_STRUCTURES = "training_set.extxyz"
EXPORTED_RECORD = "export.json"


@dataclass(frozen=True)
class Status:
    """Where a campaign stands.

    Attributes:
        next: The stage that comes next, or would if it went on, such as ``round 3: label``.
        finished: Why it has come to its end and how to go on; empty if it has not.
        n_labels: Finished calculations that gave a label.
        failures: Reason to structures that were set aside.
        n_waiting: Structures in ``to_label.extxyz`` that no label has come for.
        waiting_file: That file; empty if none waits.
        holder: Who runs it; empty if nobody does.
        rounds: The lines of ``rounds.jsonl``.
        energy_errors: ``total`` or ``per-atom``: which energy errors are shown.
        auc: Error to the sum over the rounds, meV, meV/atom and meV/Å; that of energies is left
            out if ``undetermined`` says something.
        undetermined: Of which rounds the energy errors are no result, and why; or nothing.
        messages: Round to what its fit had to say.
        damage: Files that are not what the campaign wrote, a line each.
        calculation_hours: Wall time of all calculations, hours.
        hours: Wall time of all stages of finished rounds, hours.
        forecast: What one more batch would bring; None when that cannot be told.
    """

    next: str
    finished: str
    n_labels: int
    failures: dict[str, int]
    n_waiting: int
    waiting_file: str
    holder: str
    rounds: tuple[dict[str, Any], ...]
    energy_errors: str
    auc: dict[str, float]
    undetermined: str
    messages: dict[int, list[str]]
    damage: tuple[str, ...]
    calculation_hours: float
    hours: float
    forecast: Forecast | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return asdict(self)


def get_status(state: CampaignState, *, check: bool = True) -> Status:
    """Look at a campaign; nothing is written, and it may be running.

    Args:
        state: The campaign.
        check: Whether to hold all files against the hashes in ``rounds.jsonl``; a run, which has
            done so at its start, need not.

    Raises:
        DamagedStateError: A file cannot be read.
    """
    waiting = state.folder / TO_LABEL
    is_waiting = state.stage == "label" and waiting.exists()
    n_waiting = sum(1 for _ in iter_frame_texts(waiting)) if is_waiting else 0
    events = read_log(state.directory / JOURNAL)
    seconds = [event["seconds"] for event in events if event["event"] == "calculation"]
    return Status(
        next=f"round {state.n_round}: {state.stage}",
        finished=_describe_end(state),
        n_labels=len(state.labels),
        failures=dict(Counter(record["failed"] for record in state.failures.values())),
        n_waiting=n_waiting,
        waiting_file=str(waiting) if is_waiting else "",
        holder=_describe_holder(state.directory),
        rounds=state.rounds,
        energy_errors=state.config.measure.energy_errors,
        auc=_sum_curves(state.rounds, state.config.measure.energy_error),
        undetermined=explain_undetermined(state.rounds),
        messages=read_messages(state.directory, state.n_round + 1),
        damage=find_damage(state) if check else (),
        calculation_hours=sum(seconds) / 3600.0,
        hours=sum_hours(state.rounds),
        forecast=forecast(state.rounds, state.config.selection.batch_size),
    )


def _describe_end(state: CampaignState) -> str:
    """Return why a campaign has come to its end and how to go on; else nothing."""
    path = state.directory / INVENTORY
    n_left = count_left(state, read_json(path) if path.exists() else {})
    reason = find_reason_to_stop(state, n_left=n_left)
    if reason is None:
        return ""
    if n_left <= 0:
        how = remind_of_failures(state) if state.failures else "to go on, add to data.pool"
    else:
        more = f"labelwise campaign run {state.directory} --rounds {state.n_round}"
        limits = "change stop in campaign.yaml" if _has_other_limits(state) else ""
        how = f"to go on: {' and '.join(filter(None, (limits, more)))}"
    return f"{reason}; {how}"


def _has_other_limits(state: CampaignState) -> bool:
    """Return whether the campaign would stop without a limit of rounds, too."""
    return find_reason_to_stop(state, n_left=1, n_rounds=state.n_round) is not None


def find_best_round(rounds: Sequence[dict[str, Any]]) -> int:
    """Return the round of lowest force RMSE on the validation set.

    The test set chooses nothing, or its errors would look too small; without a
    validation set the last round is the best, having the most labels.

    Args:
        rounds: Lines of ``rounds.jsonl``.

    Raises:
        CampaignError: No round is finished.
    """
    if not rounds:
        raise CampaignError("no round is finished: there is no model yet")
    errors = [record["errors"].get("valid") for record in rounds]
    if any(error is None for error in errors):
        return len(rounds) - 1
    values = [error["forces_rmse"] for error in errors]
    return values.index(min(values))


def export_round(state: CampaignState, n_round: int, folder: Path) -> Path:
    """Write a round's model for other programs, and what it was trained on.

    Args:
        state: The campaign.
        n_round: The round.
        folder: Where ``potential.model`` (for mace-torch, LAMMPS, OpenMM),
            ``training_set.extxyz`` and ``export.json`` go; made if missing.

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
    frames = context.train_frames(state)[: record["n_train"]]
    folder.mkdir(parents=True, exist_ok=True)
    save_potential(context.model_of(state, n_round), folder / EXPORTED_MODEL)
    write_structures(folder / EXPORTED_STRUCTURES, [frame.atoms for frame in frames])
    sync_folder(folder)
    words = {
        "campaign": str(state.directory.absolute()),
        "round": n_round,
        "n_train": record["n_train"],
        "errors": record["errors"],
        **{key: record[key] for key in (SPLITS, UNDETERMINED) if key in record},
        **({"messages": messages} if messages else {}),
        "units": "meV, meV/atom, meV/Å",
        "pretrained": state.config.model.path,
        "versions": record["versions"],
    }
    write_json(folder / EXPORTED_RECORD, words)
    return folder


def _sum_curves(rounds: Sequence[dict[str, Any]], energy_error: str) -> dict[str, float]:
    sums = {}
    for error in (energy_error, "forces_rmse"):
        curve = [value for _, value in get_curve(rounds, error)]
        is_no_result = error == energy_error and bool(explain_undetermined(rounds))
        if curve and not is_no_result:
            sums[error] = auc_of_curve(curve)
    return sums


def _describe_holder(directory: Path) -> str:
    holder = read_holder(directory)
    if holder is None:
        return ""
    return f"{holder} (dead)" if is_stale(holder) else str(holder)
