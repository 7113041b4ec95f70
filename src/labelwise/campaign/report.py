"""Where a campaign stands, and what it leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelwise.campaign.bench import open_bench
from labelwise.campaign.durable import read_log, sync_folder, write_json
from labelwise.campaign.errors import CampaignError
from labelwise.campaign.lock import is_stale, read_holder
from labelwise.campaign.state import JOURNAL, SPLITS, CampaignState
from labelwise.campaign.stopping import Forecast, forecast, get_curve, sum_hours
from labelwise.finetuning import save_potential
from labelwise.labelling.files import TO_LABEL
from labelwise.metrics import auc_of_curve
from labelwise.structures import write_structures
from labelwise.structures.extxyz import iter_frame_texts

EXPORTED_MODEL = "potential.model"
EXPORTED_STRUCTURES = "training_set.extxyz"
EXPORTED_RECORD = "export.json"


@dataclass(frozen=True)
class Status:
    """Where a campaign stands.

    Attributes:
        next: What comes next, such as ``round 3: label``.
        n_labels: Finished calculations that gave a label.
        failures: Reason to structures that were set aside.
        n_waiting: Structures in ``to_label.extxyz`` that no label has come for.
        waiting_file: That file; empty if none waits.
        holder: Who runs it; empty if nobody does.
        rounds: The lines of ``rounds.jsonl``.
        energy_errors: ``total`` or ``per-atom``: which energy errors are shown.
        auc: Error to the sum over the rounds, meV, meV/atom and meV/Å.
        calculation_hours: Wall time of all calculations, hours.
        hours: Wall time of all stages of finished rounds, hours.
        forecast: What one more batch would bring; None when that cannot be told.
    """

    next: str
    n_labels: int
    failures: dict[str, int]
    n_waiting: int
    waiting_file: str
    holder: str
    rounds: tuple[dict[str, Any], ...]
    energy_errors: str
    auc: dict[str, float]
    calculation_hours: float
    hours: float
    forecast: Forecast | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return asdict(self)


def get_status(state: CampaignState) -> Status:
    """Look at a campaign; nothing is written, and it may be running.

    Args:
        state: The campaign.

    Raises:
        DamagedStateError: A file is not what the campaign wrote.
    """
    waiting = state.folder / TO_LABEL
    is_waiting = state.stage == "label" and waiting.exists()
    n_waiting = sum(1 for _ in iter_frame_texts(waiting)) if is_waiting else 0
    events = read_log(state.directory / JOURNAL)
    seconds = [event["seconds"] for event in events if event["event"] == "calculation"]
    return Status(
        next=f"round {state.n_round}: {state.stage}",
        n_labels=len(state.labels),
        failures=dict(Counter(record["failed"] for record in state.failures.values())),
        n_waiting=n_waiting,
        waiting_file=str(waiting) if is_waiting else "",
        holder=_describe_holder(state.directory),
        rounds=state.rounds,
        energy_errors=state.config.measure.energy_errors,
        auc=_sum_curves(state.rounds, state.config.measure.energy_error),
        calculation_hours=sum(seconds) / 3600.0,
        hours=sum_hours(state.rounds),
        forecast=forecast(state.rounds, state.config.selection.batch_size),
    )


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
        DamagedStateError: The model's file is not what the campaign wrote.
        WriteError: A file cannot be written.
    """
    if not 0 <= n_round < len(state.rounds):
        raise CampaignError(
            f"round {n_round} is not finished; finished are 0 to {len(state.rounds) - 1}"
        )
    record = state.rounds[n_round]
    bench = open_bench(state)
    frames = bench.train_frames(state)[: record["n_train"]]
    folder.mkdir(parents=True, exist_ok=True)
    save_potential(bench.model_of(state, n_round), folder / EXPORTED_MODEL)
    write_structures(folder / EXPORTED_STRUCTURES, [frame.atoms for frame in frames])
    sync_folder(folder)
    words = {
        "campaign": str(state.directory.absolute()),
        "round": n_round,
        "n_train": record["n_train"],
        "errors": record["errors"],
        **({SPLITS: record[SPLITS]} if SPLITS in record else {}),
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
        if curve:
            sums[error] = auc_of_curve(curve)
    return sums


def _describe_holder(directory: Path) -> str:
    holder = read_holder(directory)
    if holder is None:
        return ""
    return f"{holder} (dead)" if is_stale(holder) else str(holder)
