"""The campaigns of a study on disk: beginning them, and reading what they measured."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from labelwise.campaign.atomic_io import read_json, read_log, write_json
from labelwise.campaign.config import CampaignConfig, read_config
from labelwise.campaign.rounds import SPLITS, RoundRecord
from labelwise.campaign.state import PICKS, RANK_CORRELATION, ROUNDS, read_messages
from labelwise.campaign.yaml_files import CONFIG_FILE
from labelwise.runtime.files import write_bytes
from labelwise.studies.comparison.results import MEASURED, CellResult, RoundCost
from labelwise.studies.comparison.study import Cell
from labelwise.studies.comparison.study_file import StudyError

FINISHED = "finished.json"
_N_LISTED = 5


def prepare_cell(cell: Cell, *, force: bool = False) -> None:
    """Write a campaign's configuration, or see that the one that is there is the same.

    Only how far it goes may change.

    Args:
        cell: The campaign.
        force: Remove a campaign that was begun with other settings.

    Raises:
        StudyError: It was begun with other settings; names them.
        WriteError: The file cannot be written.
    """
    path = cell.directory / CONFIG_FILE
    content = cell.config.model_dump(mode="json")
    if path.exists():
        known = read_config(cell.directory)
        different = _differences(known, cell.config)
        if different and not force:
            more = f" and {len(different) - _N_LISTED} more" if len(different) > _N_LISTED else ""
            raise StudyError(
                f"{cell.directory} was begun with other settings "
                f"({'; '.join(different[:_N_LISTED])}{more}): give the study another folder with "
                "--out, or begin such campaigns anew with --force"
            )
        if different:
            shutil.rmtree(cell.directory)
        elif known == cell.config:
            return
    cell.directory.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_bytes(path, text.encode(), durable=True)


def mark_finished(directory: Path, reason: str) -> None:
    """Write down that a campaign came to its end, and why."""
    stop = read_config(directory).stop.model_dump(mode="json")
    write_json(directory / FINISHED, {"reason": reason, "stop": stop})


def is_finished(cell: Cell) -> bool:
    """Return whether a campaign came to the end that the study sets."""
    path = cell.directory / FINISHED
    if not path.exists():
        return False
    stop: dict[str, Any] = cell.config.stop.model_dump(mode="json")
    return bool(read_json(path)["stop"] == stop)


def count_rounds(cell: Cell) -> int:
    """Return how many rounds are finished; the campaign may be running."""
    return len(_read_rounds(cell))


def read_results(cells: Iterable[Cell]) -> list[CellResult]:
    """Read what campaigns measured, finished or not; those without a round are left out.

    Raises:
        DamagedStateError: A file is not what the campaign wrote.
    """
    return [result for cell in cells if (result := _read_cell(cell)) is not None]


def _read_cell(cell: Cell) -> CellResult | None:
    rounds = _read_rounds(cell)
    if not rounds or "test" not in rounds[-1]["errors"]:
        return None
    selection = cell.config.selection
    return CellResult(
        key=cell.key,
        n_labels=tuple(int(record["n_train"]) for record in rounds),
        curves=_read_curves([_test_errors(record) for record in rounds]),
        costs=tuple(_read_cost(record) for record in rounds),
        n_models=_count_models(cell.config),
        start=cell.config.finetune.start,
        rank_correlations=_read_correlations(cell, len(rounds))
        if selection.needs_committee
        else {},
        is_finished=is_finished(cell),
        splits=_read_splits(rounds),
        undetermined=tuple(int(each["round"]) for each in rounds if _is_undetermined(each)),
        messages=read_messages(cell.directory, len(rounds)),
    )


def _is_undetermined(record: Mapping[str, Any]) -> bool:
    return RoundRecord.from_line(record).is_undetermined


def _test_errors(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a round's errors; those of energies that are no result as NaN."""
    errors: dict[str, Any] = record["errors"]["test"]
    if not _is_undetermined(record):
        return errors
    return {
        name: math.nan if name.startswith("energy_") else value for name, value in errors.items()
    }


def _read_curves(tables: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, ...]]:
    """Return the curves of the errors that every round has."""
    known = [name for name in MEASURED if all(name in table for table in tables)]
    return {name: tuple(float(table[name]) for table in tables) for name in known}


def _read_splits(rounds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, ...]]]:
    """Return the curves of each split that every round has."""
    tables = [record.get(SPLITS, {}) for record in rounds]
    return {
        name: _read_curves([each[name] for each in tables])
        for name in tables[-1]
        if all(name in each for each in tables)
    }


def _read_rounds(cell: Cell) -> list[dict[str, Any]]:
    path = cell.directory / ROUNDS
    return read_log(path) if path.exists() else []


def _read_cost(record: dict[str, Any]) -> RoundCost:
    stages = record["stages"]
    return RoundCost(
        {name: float(stage["seconds"]) for name, stage in stages.items()},
        {name: float(stage["peak_mib"]) for name, stage in stages.items()},
    )


def _read_correlations(cell: Cell, n_rounds: int) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[float]] = {"energy": [], "forces": []}
    for number in range(1, n_rounds):
        picks = read_json(cell.directory / f"round_{number:03d}" / PICKS)
        for name, values in found.items():
            value = picks.get(RANK_CORRELATION, {}).get(name)
            values.append(math.nan if value is None else float(value))
    return {name: tuple(values) for name, values in found.items()}


def _count_models(config: CampaignConfig) -> int:
    """Return how many models are fine-tuned in a round."""
    selection = config.selection
    if not selection.needs_committee:
        return 1
    return selection.members + (selection.diversity != "shuffle")


def _differences(known: CampaignConfig, wanted: CampaignConfig) -> list[str]:
    before, after = known.result_keys(), wanted.result_keys()
    keys = sorted({*before, *after})
    return [
        f"{key} {before.get(key)!r} → {after.get(key)!r}"
        for key in keys
        if before.get(key) != after.get(key)
    ]
