"""What a study found, as ``results.json`` keeps it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labelwise.campaign.rounds import known_or_nan
from labelwise.errors import LabelwiseError, ReadError
from labelwise.studies.comparison.results import CellKey, CellResult, MethodCost, RoundCost
from labelwise.studies.comparison.series import Comparison, compare_cells
from labelwise.studies.comparison.statistics import CONFIDENCE
from labelwise.studies.comparison.tables import Table, list_unknown

RECORD = "results.json"
#: Tables of all rounds, which the cells hold already.
_LONG = frozenset({"curves", "rounds_seconds", "committees"})
_AGAIN = "write it anew with: labelwise compare {folder} --tables-only"


@dataclass(frozen=True)
class StudyRecord:
    """A study's results.

    Attributes:
        folder: Where they lie.
        title: Of the study.
        notes: How it was run.
        comparison: Its campaigns.
        costs: What scoring with each method takes, as far as it was measured.
    """

    folder: Path
    title: str
    notes: tuple[str, ...]
    comparison: Comparison
    costs: tuple[MethodCost, ...]

    @property
    def hours(self) -> float:
        """What all campaigns took together, finished or not, hours."""
        rounds = [cost for cell in self.comparison.cells for cost in cell.costs]
        return sum(sum(cost.seconds.values()) for cost in rounds) / 3600.0


def write_record(record: StudyRecord, made: Sequence[Table]) -> str:
    """Return all cells and the short tables as JSON; null for what is not known."""
    comparison = record.comparison
    content = {
        "title": record.title,
        "notes": list(record.notes),
        "reference": comparison.reference,
        "energy_errors": comparison.energy_errors,
        "confidence": CONFIDENCE,
        "n_used": comparison.n_used,
        "n_planned": comparison.n_planned,
        "unfinished": comparison.unfinished,
        "missing": comparison.missing,
        "odd": comparison.odd,
        "not_finite": list_unknown(comparison),
        "tables": {table.name: table.as_records() for table in made if table.name not in _LONG},
        "cells": [_plain_cell(cell) for cell in comparison.cells],
    }
    return json.dumps(_without_nan(content), indent=1, ensure_ascii=False) + "\n"


def _plain_cell(cell: CellResult) -> dict[str, Any]:
    """Return a cell as plain data; its mappings may be of any kind."""
    costs = [{"seconds": dict(c.seconds), "peak_mib": dict(c.peak_mib)} for c in cell.costs]
    return {
        **asdict(cell.key),
        "start": cell.start,
        "n_models": cell.n_models,
        "is_finished": cell.is_finished,
        "n_labels": cell.n_labels,
        "curves": dict(cell.curves),
        "splits": {name: dict(curves) for name, curves in cell.splits.items()},
        "rank_correlations": dict(cell.rank_correlations),
        "costs": costs,
    }


def _without_nan(value: Any) -> Any:
    """Return plain data with None for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_record(folder: Path) -> StudyRecord:
    """Read the results of a study.

    Args:
        folder: Of the study, with ``results.json`` in it.

    Raises:
        ReadError: The file is missing, not JSON, or not what ``labelwise compare`` writes.
    """
    path = folder / RECORD
    again = _AGAIN.format(folder=folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReadError(f"{path} does not exist, so no comparison is known; {again}") from error
    except (OSError, ValueError) as error:
        words = " ".join(str(error).split())
        raise ReadError(f"{path} cannot be read ({words}); {again}") from error
    try:
        return _parse(folder, content)
    except (KeyError, TypeError, ValueError, AttributeError, LabelwiseError) as error:
        words = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ReadError(
            f"{path} is not the record of a comparison ({words:.200}); {again}"
        ) from error


def _parse(folder: Path, content: Mapping[str, Any]) -> StudyRecord:
    found = compare_cells(
        [_parse_cell(cell) for cell in content["cells"]],
        reference=str(content["reference"]),
        energy_errors=content.get("energy_errors", "total"),
    )
    comparison = replace(
        found, missing=_words(content["missing"]), n_planned=int(content["n_planned"])
    )
    tables: Mapping[str, Any] = content["tables"]
    return StudyRecord(
        folder=folder,
        title=str(content["title"]),
        notes=_words(content["notes"]),
        comparison=comparison,
        costs=tuple(
            _parse_cost(row) for row in tables.get("cost", ()) if row["n_forward"] is not None
        ),
    )


def _parse_cell(cell: Mapping[str, Any]) -> CellResult:
    splits: Mapping[str, Any] = cell.get("splits", {})
    return CellResult(
        key=CellKey(str(cell["pool"]), str(cell["method"]), int(cell["seed"])),
        n_labels=tuple(int(n) for n in cell["n_labels"]),
        curves=_parse_curves(cell["curves"]),
        costs=tuple(
            RoundCost(_numbers(cost["seconds"]), _numbers(cost["peak_mib"]))
            for cost in cell["costs"]
        ),
        n_models=int(cell["n_models"]),
        start=str(cell["start"]),
        rank_correlations=_parse_curves(cell["rank_correlations"]),
        is_finished=bool(cell["is_finished"]),
        splits={str(name): _parse_curves(curves) for name, curves in splits.items()},
    )


def _parse_curves(curves: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    return {
        str(name): tuple(known_or_nan(value) for value in values) for name, values in curves.items()
    }


def _parse_cost(row: Mapping[str, Any]) -> MethodCost:
    return MethodCost(
        method=str(row["method"]),
        n_forward=float(row["n_forward"]),
        n_backward=float(row["n_backward"]),
        n_models=int(row["n_models"]),
        dim=0 if row["dim"] is None else int(row["dim"]),
        seconds_per_structure=known_or_nan(row["processor_ms_per_structure"]) / 1e3,
        feature_mib=known_or_nan(row["feature_mib"]),
    )


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): known_or_nan(value) for name, value in values.items()}


def _words(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
