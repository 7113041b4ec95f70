"""What ``labelwise geometry`` and ``labelwise calibrate`` wrote into a study's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelwise.pages.document import Axis, Cell, Chart, Mark, Panel, Series, Table, TableColumn
from labelwise.studies.comparison.page.diagnosis import Diagnosis
from labelwise.studies.comparison.page.kernels import GEOMETRY_NUMBERS, known
from labelwise.studies.comparison.page.naming import Namer
from labelwise.studies.diagnostics.settings import GEOMETRY_DATA

_CALIBRATION = "calibration.json"
_MOST = 4
_GEOMETRY_COLUMNS = (*GEOMETRY_NUMBERS, ("similarity", "CKA with the first model"))
_CALIBRATION_COLUMNS = (
    ("n_labels", "labels"),
    ("nll", "NLL"),
    ("ece", "calibration error"),
    ("coverage_90", "inside 90 % interval"),
    ("rmse_mev", "RMSE / meV"),
    ("model_rmse_mev", "RMSE without kernel / meV"),
)


def read_kept(folder: Path, namer: Namer) -> Diagnosis:
    """Return tables and reliability diagrams of diagnostics that lie in or below a study's folder.

    A file that is not what those commands write is named in the notes.
    """
    kernels, first = _read_all(folder, GEOMETRY_DATA, _show_geometry, namer)
    reliability, second = _read_all(folder, _CALIBRATION, _show_calibration, namer)
    return Diagnosis(kernels, reliability, notes=(*first, *second))


_Show = Callable[[Mapping[str, Any], str, Namer], list[Panel]]


def _read_all(
    folder: Path, name: str, show: _Show, namer: Namer
) -> tuple[list[Panel], tuple[str, ...]]:
    panels: list[Panel] = []
    notes: list[str] = []
    paths = [*folder.glob(name), *sorted(folder.glob(f"*/{name}"))]
    for path in paths[:_MOST]:
        where = str(path.relative_to(folder))
        try:
            panels += show(json.loads(path.read_text(encoding="utf-8")), where, namer)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            words = " ".join(str(error).split())
            notes.append(f"Not shown: {where}, which cannot be read ({words:.100}).")
    return panels, tuple(notes)


def _show_geometry(content: Mapping[str, Any], where: str, namer: Namer) -> list[Panel]:
    models: Sequence[str] = content["models"]
    rows: list[tuple[Cell, ...]] = []
    for entry in content["kernels"]:
        head = (str(entry["kernel"]), None if entry["model"] is None else str(entry["model"]))
        rows.append((*head, *(known(entry[key]) for key, _ in _GEOMETRY_COLUMNS)))
    n_structures = len(content["idx"])
    table = Table(
        name=namer.name("geometry", where),
        title=f"What kernels tell apart: {where}",
        columns=(
            TableColumn("kernel"),
            TableColumn("model"),
            *(TableColumn(heading, 3) for _, heading in _GEOMETRY_COLUMNS),
        ),
        rows=tuple(rows),
        caption=(
            f"Written by 'labelwise geometry', of {n_structures} structures of "
            f"{len(content['families'])} families; models: {', '.join(map(str, models)) or 'none'}."
        ),
    )
    return [table]


def _show_calibration(content: Mapping[str, Any], where: str, namer: Namer) -> list[Panel]:
    levels = np.array(content["levels"], dtype=np.float64)
    series = []
    rows: list[tuple[Cell, ...]] = []
    for place, entry in enumerate(content["kernels"]):
        series.append(_as_series(entry, levels, place))
        mean: Mapping[str, Any] = entry["mean"]
        rows.append((str(entry["kernel"]), *(known(mean[key]) for key, _ in _CALIBRATION_COLUMNS)))
    has_bands = any(each.low is not None for each in series)
    chart = Chart(
        name=namer.name("reliability", where),
        title=f"Reliability of kernels: {where}",
        mark=Mark.LINES,
        x=Axis("nominal coverage"),
        y=Axis("empirical coverage"),
        series=tuple(series),
        diagonal=True,
        caption=(
            "Written by 'labelwise calibrate': mean over initial sets. Above the diagonal the "
            "uncertainty is too large, below it too small."
        ),
        band_name="standard deviation over initial sets" if has_bands else "",
    )
    table = Table(
        name=namer.name("calibration", where),
        title=f"Calibration of kernels: {where}",
        columns=(
            TableColumn("kernel"),
            *(TableColumn(heading, 3) for _, heading in _CALIBRATION_COLUMNS),
        ),
        rows=tuple(rows),
        caption="Means over initial sets.",
    )
    return [chart, table]


def _as_series(entry: Mapping[str, Any], levels: np.ndarray, place: int) -> Series:
    values = np.array([replay["chosen"]["test"]["coverages"] for replay in entry["replays"]])
    mean = values.mean(axis=0)
    deviation = values.std(axis=0, ddof=1) if len(values) > 1 else None
    return Series(
        name=str(entry["kernel"]),
        x=levels,
        y=mean.astype(np.float32),
        low=None if deviation is None else (mean - deviation).astype(np.float32),
        high=None if deviation is None else (mean + deviation).astype(np.float32),
        style=place,
    )
